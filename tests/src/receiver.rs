//! A model of a TCP receiver: in order to the application, the rest kept until its gap is filled.

use std::collections::BTreeMap;

/// The receiving end of a stream. Sequence numbers are offsets from the first byte.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    /// What the application read.
    pub stream: Vec<u8>,
    queue: BTreeMap<usize, Vec<u8>>,
}

impl Receiver {
    /// The next byte it expects.
    #[must_use]
    pub fn next(&self) -> usize {
        self.stream.len()
    }

    /// Takes a segment. In-order data beats queued data; of two queued copies with one start the first stays
    /// unless the second is longer.
    pub fn take(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        if end <= self.next() {
            return;
        }
        if start > self.next() {
            let queued = self.queue.entry(start).or_default();
            if bytes.len() > queued.len() {
                *queued = bytes.to_vec();
            }
            return;
        }
        self.stream.extend_from_slice(&bytes[self.next() - start..]);
        while let Some((start, bytes)) = self.queue.pop_first() {
            if start > self.next() {
                self.queue.insert(start, bytes);
                break;
            }
            let known = self.next() - start;
            if let Some(fresh) = bytes.get(known..) {
                self.stream.extend_from_slice(fresh);
            }
        }
    }
}
