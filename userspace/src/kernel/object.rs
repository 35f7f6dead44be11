//! The kernel programs inside this binary, as the BPF linker wrote them.

/// The ELF object; empty where the binary was built without it.
pub static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs"));

/// The binary was built by plain cargo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("built without the kernel programs: build with `cargo xtask build`")]
pub struct BuiltWithout;

/// The kernel programs, ready for the loader.
///
/// # Errors
/// Where the binary was built without them.
pub fn programs() -> Result<&'static [u8], BuiltWithout> {
    if PROGRAMS.is_empty() {
        return Err(BuiltWithout);
    }
    Ok(PROGRAMS)
}
