//! Second copies on their way out: see [`tokenblock_ebpf::flow::Pieces`].

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_loop};
use tokenblock_ebpf::{
    flow::{Flow, Pieces},
    sums::SumKeys,
};

use super::maps::{self, Work};

/// More pieces than a packet has that the kernel makes.
const MOST_PIECES: u32 = 1 << 16;

const CONTINUE: i64 = 0;
const STOP: i64 = 1;

/// What [`tokenblock_copies`] does with the pieces.
const COMPARE: u32 = 0;
const NOTE: u32 = 1;

/// What the pieces of one packet share; lies on the stack, so that the pointers stay typed for the verifier.
struct Shared<'a> {
    skb: *mut __sk_buff,
    work: &'a mut Work,
    flow: &'a mut Flow,
    keys: &'static SumKeys,
    /// Whether they are noted, not compared.
    notes: bool,
}

/// Whether the segment in `work` says what was passed in its place: then it may pass again.
#[inline(always)]
pub fn is_copy(skb: *mut __sk_buff, work: &mut Work, flow: &mut Flow) -> bool {
    tokenblock_copies(skb, work, flow, COMPARE) != 0
}

/// Notes of the segment in `work`, which was passed, what it says.
#[inline(always)]
pub fn note(skb: *mut __sk_buff, work: &mut Work, flow: &mut Flow) {
    tokenblock_copies(skb, work, flow, NOTE);
}

/// Compares or notes the segment in `work`; gives 1 where all of it was. Under a name that other objects could call, since such a
/// function the verifier walks through once.
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_copies(
    skb: *mut __sk_buff,
    work: *mut Work,
    flow: *mut Flow,
    what: u32,
) -> u64 {
    // SAFETY: callers pass references; the verifier sees to the rest.
    let (Some(work), Some(flow)) = (unsafe { (work.as_mut(), flow.as_mut()) }) else {
        return 0;
    };
    let Some(keys) = maps::sum_keys() else {
        return 0;
    };
    let [start, end] = work.bounds();
    let notes = what == NOTE;
    if work.tracked == 0 {
        return 0;
    }
    if notes {
        flow.begin_copies(start, end);
        // SAFETY: the program's context.
        work.pieces = Pieces::new(start, end, unsafe { (*skb).gso_size });
    } else {
        flow.expect_copies();
        if !flow.may_be_copy(start) {
            return 0;
        }
        // What is noted of a piece says how long it is.
        work.pieces = Pieces::new(start, end, 0);
    }
    work.gap_key.epoch = flow.copies();
    let mut shared = Shared {
        skb,
        work,
        flow,
        keys,
        notes,
    };
    let context: *mut Shared<'_> = &raw mut shared;
    // SAFETY: the callback gets the context back, and it outlives the call.
    unsafe { bpf_loop(MOST_PIECES, piece as *mut c_void, context.cast(), 0) };
    if shared.work.pieces.left() != 0 {
        return 0;
    }
    if !shared.notes {
        let now = shared.work.look_at_clock();
        shared.flow.pass_copy(&shared.work.pieces, now);
    }
    1
}

/// One piece under `bpf_loop`.
extern "C" fn piece(_index: u64, context: *mut Shared<'_>) -> i64 {
    // SAFETY: `tokenblock_copies` passes its own.
    let Shared {
        skb,
        work,
        flow,
        keys,
        notes,
    } = unsafe { &mut *context };
    let (at, left) = (work.pieces.at(), work.pieces.left());
    work.gap_key.at = at;
    let (len, noted) = if *notes {
        (work.pieces.next_len(), None)
    } else {
        let noted = maps::copied(&work.gap_key);
        let generation = work.generation;
        let len = noted.map_or(0, |noted| noted.len(flow, at, left, generation));
        (len, noted)
    };
    if len == 0 {
        return STOP;
    }
    let segment = &work.segment;
    let payload_end = segment.payload_at.wrapping_add(segment.payload_len);
    let from = payload_end.wrapping_sub(left);
    work.window.open(from, from.wrapping_add(len));
    if !work.window.advance(*skb, 0) {
        work.window.close(*skb);
        return STOP;
    }
    let sums = work.window.take_sums(keys);
    match noted {
        Some(noted) if !noted.says(&sums) => return STOP,
        Some(noted) => work.pieces.compared(noted, len),
        None => {
            let copied = flow.copied(&work.pieces, sums, work.generation);
            maps::note_copied(&work.gap_key, &copied);
            work.pieces.advance(len);
        }
    }
    CONTINUE
}
