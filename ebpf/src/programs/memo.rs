//! Header blocks that repeat, as the window shows them.

use tokenblock_ebpf::{
    flow::{Flow, Recalled},
    rules::Rules,
    sums::SumKeys,
};

use super::maps::{self, Work};

/// Before a segment is scanned: whether all of it is known. Where the flow may know its header block alone, the window shows
/// what is in front of that, until [`Flow::come_to_end`] is asked.
#[inline(always)]
pub fn recall(work: &mut Work, flow: &mut Flow, rules: &Rules) -> bool {
    flow.may_recall(work.place, work.start)
        && maps::sum_keys()
            .is_some_and(|keys| tokenblock_recall(flow, &raw mut *work, keys, rules) != 0)
}

/// [`recall`], under a name that other objects could call, since such a function the verifier walks through once.
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
            Recalled::Request => return 1,
            Recalled::Line(len) => window.narrow(len),
            Recalled::Nothing => {}
        }
    }
    0
}
