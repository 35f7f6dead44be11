//! Memory for bytes on their way, shared by all connections of a worker.
//!
//! The buffer that was given back last is taken first: it is the one that is still in the processor's cache. A
//! connection that waits holds none.

use std::{
    cell::RefCell,
    mem::{self, MaybeUninit},
    ops::Deref,
    rc::Rc,
};

/// Bytes of a buffer when it is new.
const SIZE: usize = 16 * 1024;
/// Bytes of one for something that is long.
const LARGE: usize = 64 * 1024;
/// Buffers that are kept for the next who needs one.
const KEPT: usize = 64;

/// The buffers that nobody uses.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct Buffers(Rc<RefCell<Vec<Vec<u8>>>>);

/// One buffer; takes memory when it is filled, and gives it back when it is empty.
#[derive(Debug)]
pub(in crate::proxy) struct Buffer {
    bytes: Vec<u8>,
    /// Most bytes that were in it since it was taken.
    used: usize,
    pool: Buffers,
}

impl Buffer {
    /// One without memory.
    pub(in crate::proxy) fn empty(pool: &Buffers) -> Self {
        Self {
            bytes: Vec::new(),
            used: 0,
            pool: pool.clone(),
        }
    }

    /// To be filled; it has room.
    pub(in crate::proxy) fn filling(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            let kept = self.pool.0.borrow_mut().pop();
            self.bytes = kept.unwrap_or_else(|| Vec::with_capacity(SIZE));
        } else if self.bytes.len() == self.bytes.capacity() {
            self.bytes.reserve(SIZE);
        }
        &mut self.bytes
    }

    /// Gives the memory back where nothing is in it.
    pub(in crate::proxy) fn settle(&mut self) {
        if self.bytes.is_empty() {
            self.release();
        }
    }

    /// Forgets the first `len` bytes.
    pub(in crate::proxy) fn consume(&mut self, len: usize) {
        self.note();
        self.bytes.drain(..len.min(self.bytes.len()));
        self.settle();
    }

    /// Forgets all, and keeps the memory.
    pub(in crate::proxy) fn clear(&mut self) {
        self.note();
        self.bytes.clear();
    }

    /// Ready for the next bytes of something long: with more room, where the last ones took all there was.
    pub(in crate::proxy) fn next(&mut self) {
        self.note();
        let full = self.bytes.len() == self.bytes.capacity();
        self.bytes.clear();
        if full && self.bytes.capacity() == SIZE {
            self.release();
            self.bytes = Vec::with_capacity(LARGE);
        }
    }

    fn note(&mut self) {
        self.used = self.used.max(self.bytes.len());
    }

    /// What was in it is wiped: it may have been a token, and the next one may never come.
    fn release(&mut self) {
        self.note();
        let used = mem::take(&mut self.used);
        let mut bytes = mem::take(&mut self.bytes);
        let mut kept = self.pool.0.borrow_mut();
        if bytes.capacity() == SIZE && kept.len() < KEPT {
            bytes.clear();
            if let Some(used) = bytes.spare_capacity_mut().get_mut(..used) {
                used.fill(MaybeUninit::new(0));
            }
            kept.push(bytes);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_buffer_has_no_memory_and_the_last_is_the_next() {
        let pool = Buffers::default();
        let mut one = Buffer::empty(&pool);
        one.filling().extend_from_slice(b"abc");
        let place = one.as_ptr();
        one.consume(1);
        assert_eq!(&*one, b"bc");
        one.consume(2);
        assert_eq!(one.bytes.capacity(), 0);
        let mut two = Buffer::empty(&pool);
        assert_eq!(two.filling().as_ptr(), place);
        assert!(two.is_empty());
    }
}
