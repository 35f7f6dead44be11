//! Header blocks that repeat, as the window shows them.

use tokenblock_ebpf::{flow::Flow, scan::Scan, sums::SumKeys};

use super::{
    maps::{self, Work},
    window::Window,
};

/// Before the first scan of a segment: where the flow may know its header block, the window shows what is in front of it
/// alone, until [`Flow::come_to_end`] is asked.
#[inline(always)]
pub fn recall(work: &mut Work, flow: &mut Flow) {
    if flow.may_recall()
        && let Some(keys) = maps::sum_keys()
    {
        tokenblock_recall(
            flow,
            &raw const work.scan,
            &raw mut work.window,
            keys,
            work.generation,
        );
    }
}

/// [`recall`], under a name that other objects could call, since such a function the verifier walks through once. Gives 0,
/// for it wants a value.
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_recall(
    flow: *mut Flow,
    scan: *const Scan,
    window: *mut Window,
    keys: *const SumKeys,
    generation: u64,
) -> u64 {
    // SAFETY: `recall` passes references; the verifier sees to the rest.
    let passed = unsafe { (flow.as_mut(), scan.as_ref(), window.as_mut(), keys.as_ref()) };
    if let (Some(flow), Some(scan), Some(window), Some(keys)) = passed
        && window.is_last()
    {
        let first = flow.recall(scan, window, keys, generation);
        if first != 0 {
            window.narrow(first);
        }
    }
    0
}
