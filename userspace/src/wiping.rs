//! Memory that held a token is wiped, also where a library has let it go: neither a core dump nor the next allocation
//! shows it.

mod registers;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
};

pub use registers::{spawn_wiped, wipe_registers};

/// Most bytes that are wiped; what is larger holds digests, or wipes itself.
const MOST: usize = 1 << 20;

/// The system's allocator, which wipes.
pub struct Wiping;

// SAFETY: all is left to the system's allocator; what is wiped is the caller's until it is given back.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() <= MOST {
            // SAFETY: the block is as long as its layout says.
            unsafe { block.write_bytes(0, layout.size()) };
            // Else the compiler sees writes that nobody reads.
            black_box(block);
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size() > MOST {
            // SAFETY: the caller's promise.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the caller promises that the size fits a layout of this alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as above.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both blocks have as many bytes, and are two.
            unsafe {
                block.copy_to_nonoverlapping(moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        moved
    }
}

/// Wipes the part of the stack that a function which has returned may have used.
#[inline(never)]
pub fn wipe_stack() {
    const DEEP: usize = 4096;
    let mut stack = [0_u8; DEEP];
    black_box(&mut stack);
}

/// The same of much more of it, for what is done seldom enough.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what is wiped")]
pub fn wipe_deep_stack() {
    const DEEP: usize = 32 << 10;
    let mut stack = [0_u8; DEEP];
    black_box(&mut stack);
}

/// Has what is large given back to the system as soon as it is freed: else the allocator keeps as much again as a long
/// list takes, once it has read one.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    {
        // As the allocator begins; what is set stays as it is.
        const LARGE: libc::c_int = 128 * 1024;
        // SAFETY: changes a setting of the allocator's.
        let _set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}

/// Gives the system what is left of many small pieces.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
