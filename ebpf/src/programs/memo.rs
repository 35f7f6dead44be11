//! Header blocks that repeat, as the window shows them.

use aya_ebpf::bindings::__sk_buff;
use tokenblock_ebpf::{
    flow::{Flow, Recalled},
    rules::Rules,
    scan::Source as _,
    sums::{SumKeys, Sums},
    swar::forget_registers,
    verdict::Counter,
};

use super::{
    maps::{self, Work},
    window::Window,
};

/// Before a segment is scanned: whether all of it is known. Where the flow may know its header block alone, the window shows
/// what is in front of that, until [`Flow::come_to_end`] is asked.
///
/// # Errors
/// Where the packet can't be read.
#[inline(always)]
pub fn recall(
    skb: *mut __sk_buff,
    work: &mut Work,
    flow: &mut Flow,
    rules: &Rules,
) -> Result<bool, Counter> {
    if !flow.may_recall(work.place, work.start) {
        return Ok(false);
    }
    let Some(keys) = maps::sum_keys() else {
        return Ok(false);
    };
    let window = &mut work.window;
    if window.is_last() && flow.may_know_all(window.end(), work.generation) {
        if tokenblock_sum_all(flow, &raw mut *window, keys, 0) != 0 {
            return Ok(true);
        }
        // Nothing of it is left there.
        if !window.advance(skb, 0) {
            return Err(Counter::ReadFailed);
        }
    }
    forget_registers();
    Ok(tokenblock_recall(flow, &raw mut *work, keys, rules) != 0)
}

/// Takes the sums of all that the window holds, and clears it. Where they are to be noted, as `notes` says, or are known already,
/// gives 1. Under a name that other objects could call, since such a function the verifier walks through once.
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_sum_all(
    flow: *mut Flow,
    window: *mut Window,
    keys: *const SumKeys,
    notes: u32,
) -> u64 {
    // SAFETY: callers pass references; the verifier sees to the rest.
    let passed = unsafe { (flow.as_mut(), window.as_mut(), keys.as_ref()) };
    if let (Some(flow), Some(window), Some(keys)) = passed {
        let left_out = flow.left_out();
        let part = if left_out[0] < left_out[1] {
            window.part_sums(keys, 0, left_out)
        } else {
            Some(Sums::NONE)
        };
        let all = window.take_sums(keys);
        let sums = part.map(|part| all.without(&part));
        if notes == 0 {
            return u64::from(flow.knows_all(sums.as_ref()));
        }
        if let Some(sums) = sums {
            flow.note_all(&sums);
        }
    }
    1
}

/// [`recall`] of a segment that is not the one before again, as [`tokenblock_sum_all`].
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_recall(
    flow: *mut Flow,
    work: *mut Work,
    keys: *const SumKeys,
    rules: *const Rules,
) -> u64 {
    // SAFETY: `recall` passes references; the verifier sees to the rest.
    let passed = unsafe { (flow.as_mut(), work.as_mut(), keys.as_ref(), rules.as_ref()) };
    if let (Some(flow), Some(work), Some(keys), Some(rules)) = passed
        && work.window.is_last()
    {
        let (scan, window) = (&mut work.scan, &mut work.window);
        match flow.recall(scan, window, keys, rules, work.generation) {
            Recalled::RequestToSum => return tokenblock_sum_all(flow, window, keys, 1),
            Recalled::Request => return 1,
            Recalled::Line(len) => window.narrow(len),
            Recalled::Other => return tokenblock_learn(flow, work, keys, rules),
            Recalled::Nothing => {}
        }
    }
    0
}

/// Of a segment whose block is not the one that is remembered, as [`tokenblock_recall`].
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_learn(
    flow: *mut Flow,
    work: *mut Work,
    keys: *const SumKeys,
    rules: *const Rules,
) -> u64 {
    // SAFETY: as there.
    let passed = unsafe { (flow.as_mut(), work.as_mut(), keys.as_ref(), rules.as_ref()) };
    if let (Some(flow), Some(work), Some(keys), Some(rules)) = passed {
        let window = &mut work.window;
        if let Recalled::Line(len) = flow.learn(window, keys, rules, work.generation) {
            window.narrow(len);
        }
    }
    0
}
