//! Multipath TCP (RFC 8684).
//!
//! Its options say at which places of the stream the bytes of a connection stand, and of which other connections the rest comes: what an
//! application reads can't be told from one of them. So each such option is made one of no meaning, on a client's SYN and on all that it
//! sends, and both ends go on with plain TCP (section 3.7 there).

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_loop};
use tokenblock_ebpf::{
    packet::Segment,
    swar::{self, forget_registers},
};

use super::skb;

/// Kinds of TCP options (RFC 9293 section 3.2; RFC 8684 section 3).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MULTIPATH: u8 = 30;
/// One for experiments (RFC 4727 section 7.1), of which receivers know nothing.
const EXPERIMENT: u64 = 253;
/// Bytes of a TCP header without options; most bytes of options.
const HEADER: u32 = 20;
const MOST: u32 = 40;

/// What was found among the options of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Found {
    Nothing = 0,
    Hidden = 1,
    /// The packet can't be written.
    Failed = 2,
}

/// A walk through the options of a segment.
struct Walk {
    skb: *mut __sk_buff,
    tcp_at: u32,
    /// Offset of the next option in the TCP header, and of its end.
    at: u32,
    end: u32,
    found: Found,
}

/// Makes the options of Multipath TCP in `segment` ones of no meaning.
#[inline(always)]
pub fn hide(skb: *mut __sk_buff, segment: &Segment) -> Found {
    forget_registers();
    let mut walk = Walk {
        skb,
        tcp_at: segment.tcp_at,
        at: HEADER,
        end: segment.payload_at.wrapping_sub(segment.tcp_at),
        found: Found::Nothing,
    };
    let context: *mut Walk = &raw mut walk;
    // SAFETY: the callback gets the context back, and it outlives the call.
    unsafe { bpf_loop(MOST, option as *mut c_void, context.cast(), 0) };
    let found = walk.found;
    forget_registers();
    found
}

/// One option under `bpf_loop`.
extern "C" fn option(_index: u64, context: *mut Walk) -> i64 {
    const GO_ON: i64 = 0;
    const STOP: i64 = 1;
    // SAFETY: `hide` passes its own.
    let walk = unsafe { &mut *context };
    let left = walk.end.wrapping_sub(walk.at);
    let mut bytes: u64 = swar::zero();
    // The last byte alone is no option with a length.
    if !(2..=MOST).contains(&left) || !walk.read(walk.at, &mut bytes) {
        return STOP;
    }
    let (kind, len) = (bytes as u8, u32::from((bytes >> 8) as u8));
    if kind == NO_OPERATION {
        walk.at = walk.at.wrapping_add(1);
        return GO_ON;
    }
    if kind == END || len < 2 || len > left {
        return STOP;
    }
    if kind == MULTIPATH {
        walk.found = if walk.hide() {
            Found::Hidden
        } else {
            Found::Failed
        };
    }
    walk.at = walk.at.wrapping_add(len);
    GO_ON
}

impl Walk {
    /// Reads two bytes of the TCP header.
    #[inline(always)]
    fn read(&self, at: u32, to: &mut u64) -> bool {
        let at = self.tcp_at.wrapping_add(at);
        // SAFETY: the program's context; a word holds two bytes.
        unsafe { skb::read::<2>(self.skb, at, (&raw mut *to).cast()) }
    }

    /// Gives the next option another kind. The checksum is one of pairs of bytes.
    #[inline(always)]
    fn hide(&self) -> bool {
        let pair_at = self.at & !1;
        let shift = (self.at & 1) * 8;
        let mut pair: u64 = swar::zero();
        if !self.read(pair_at, &mut pair) {
            return false;
        }
        let other = pair & !(0xff << shift) | EXPERIMENT << shift;
        // SAFETY: the program's context.
        unsafe { skb::replace(self.skb, self.tcp_at, pair_at, pair, other) }
    }
}
