//! What copied a token last may have left up to 64 bytes of it in each vector register, which are in the core dump of a thread
//! that waits.

/// Wipes the vector registers of this thread; to be called before it waits.
#[inline]
pub fn wipe_registers() {
    #[cfg(target_arch = "x86_64")]
    x86::wipe();
}

/// Does `work` on a thread for what blocks, in whose registers nothing of it is left.
pub fn spawn_wiped<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::task::spawn_blocking(|| {
        let done = work();
        wipe_registers();
        done
    })
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::asm, is_x86_feature_detected};

    #[inline]
    pub(super) fn wipe() {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has these registers.
            unsafe { avx512() };
        } else if is_x86_feature_detected!("avx") {
            // SAFETY: as above.
            unsafe { avx() };
        } else {
            sse();
        }
    }

    #[target_feature(enable = "avx512f")]
    fn avx512() {
        avx();
        // SAFETY: changes nothing but registers that are declared as changed.
        unsafe {
            asm!(
                "vpxord zmm16, zmm16, zmm16",
                "vpxord zmm17, zmm17, zmm17",
                "vpxord zmm18, zmm18, zmm18",
                "vpxord zmm19, zmm19, zmm19",
                "vpxord zmm20, zmm20, zmm20",
                "vpxord zmm21, zmm21, zmm21",
                "vpxord zmm22, zmm22, zmm22",
                "vpxord zmm23, zmm23, zmm23",
                "vpxord zmm24, zmm24, zmm24",
                "vpxord zmm25, zmm25, zmm25",
                "vpxord zmm26, zmm26, zmm26",
                "vpxord zmm27, zmm27, zmm27",
                "vpxord zmm28, zmm28, zmm28",
                "vpxord zmm29, zmm29, zmm29",
                "vpxord zmm30, zmm30, zmm30",
                "vpxord zmm31, zmm31, zmm31",
                clobber_abi("C"),
                options(nomem, nostack, preserves_flags)
            );
        }
    }

    #[target_feature(enable = "avx")]
    fn avx() {
        // SAFETY: as above.
        unsafe {
            asm!(
                "vzeroall",
                clobber_abi("C"),
                options(nomem, nostack, preserves_flags)
            );
        }
    }

    fn sse() {
        // SAFETY: as above.
        unsafe {
            asm!(
                "pxor xmm0, xmm0",
                "pxor xmm1, xmm1",
                "pxor xmm2, xmm2",
                "pxor xmm3, xmm3",
                "pxor xmm4, xmm4",
                "pxor xmm5, xmm5",
                "pxor xmm6, xmm6",
                "pxor xmm7, xmm7",
                "pxor xmm8, xmm8",
                "pxor xmm9, xmm9",
                "pxor xmm10, xmm10",
                "pxor xmm11, xmm11",
                "pxor xmm12, xmm12",
                "pxor xmm13, xmm13",
                "pxor xmm14, xmm14",
                "pxor xmm15, xmm15",
                clobber_abi("C"),
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}
