//! One segment of a request: placed in its flow, scanned, passed or not.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_loop};
use tokenblock_ebpf::{
    flow::{Conflict, Flow, Left, Place, Start},
    reply::SYN,
    rules::Rules,
    scan::Step,
    verdict::{ACTION_ALERT, Counter, Settings},
};

use super::{
    classify::Direction,
    flow::{lock, of_request, unlock},
    maps::{self, Counts, MapFilter, Work},
    report::report,
    respond::Standing,
};

/// Bounds the loop; a payload of 64 KiB takes at most three units a byte (read, look up twice).
const MAX_UNITS: u32 = 1 << 18;
/// Scans that a segment may need.
const STEPS: u32 = 2;

/// Judges the segment in `work`. `standing` is told what is known of the flow.
#[inline(always)]
pub fn judge(
    skb: *mut __sk_buff,
    work: &mut Work,
    counts: &mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
    direction: Direction,
    standing: &mut Standing,
) -> Result<(), Counter> {
    // SAFETY: the program's context.
    let interface = unsafe { (*skb).ifindex };
    // SAFETY: the stand-in is this hook's own, and nothing else of `work` is reached through it.
    let untracked = unsafe { &mut *(&raw mut work.untracked) };
    let (flow, tracked) = of_request(
        &work.segment,
        interface,
        direction,
        &mut work.gap_key.flow,
        untracked,
    );
    if !tracked {
        return judge_in_flow(skb, work, counts, rules, settings, flow, false, standing);
    }
    if !lock(flow) {
        return Err(Counter::FlowBusy);
    }
    let judged = judge_in_flow(skb, work, counts, rules, settings, flow, true, standing);
    unlock(flow);
    judged
}

#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "inlined; a struct would lie on the stack"
)]
fn judge_in_flow(
    skb: *mut __sk_buff,
    work: &mut Work,
    counts: &mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
    flow: &mut Flow,
    tracked: bool,
    standing: &mut Standing,
) -> Result<(), Counter> {
    // The SYN takes a sequence number of its own (RFC 9293 section 3.4).
    let start = work
        .segment
        .sequence
        .wrapping_add(u32::from(work.segment.flags & SYN != 0));
    let end = start.wrapping_add(work.segment.payload_len);
    let now = maps::now();
    work.gap_key.at = start;
    work.gap_key.epoch = flow.epoch;
    work.gap = if flow.has_gaps() {
        maps::gap(&work.gap_key)
    } else {
        None
    };
    let place = flow.place(start, end, now, work.gap.as_ref());
    match place {
        Place::Settled => return Err(Counter::Settled),
        Place::TooEarly => return Err(Counter::TooEarly),
        Place::Duplicate => return Err(Counter::Duplicate),
        Place::OutOfWindow => return Err(Counter::OutOfWindow),
        Place::First => counts.count(Counter::MidStream),
        Place::Ahead => counts.count(Counter::Ahead),
        Place::Next | Place::Filler | Place::Recovery => {}
    }
    standing.plausible = !matches!(place, Place::Ahead);
    standing.may_forbid = flow.owes_nothing(work.segment.acknowledgment);
    flow.open();
    scan(skb, work, counts, rules, settings, flow, place, start)?;
    if !tracked {
        return if matches!(flow.leaves(), Left::Closed | Left::Line) {
            Ok(())
        } else {
            Err(Counter::FlowTableFull)
        };
    }
    match flow.pass(place, start, end, now, work.gap.as_ref()) {
        Ok(None) => Ok(()),
        Ok(Some((at, gap))) => {
            work.gap_key.at = at;
            work.gap_key.epoch = flow.epoch;
            maps::note_gap(&work.gap_key, &gap);
            Ok(())
        }
        Err(_) => Err(Counter::GapConflict),
    }
}

/// What the units of one packet share; lies on the stack, so that the pointers stay typed for the verifier.
struct Shared<'a> {
    skb: *mut __sk_buff,
    work: &'a mut Work,
    counts: &'a mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
    flow: &'a mut Flow,
    place: Place,
    start: u32,
    step: u32,
    begun: Start,
    outcome: Outcome,
}

/// How the scan of a payload ended.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Outcome {
    Unfinished = 0,
    Clean = 1,
    Blocked = 2,
    ReadFailed = 3,
    Ambiguous = 4,
}

#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "inlined; a struct would lie on the stack"
)]
fn scan(
    skb: *mut __sk_buff,
    work: &mut Work,
    counts: &mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
    flow: &mut Flow,
    place: Place,
    start: u32,
) -> Result<(), Counter> {
    let payload_at = work.segment.payload_at;
    work.window.open(
        payload_at,
        payload_at.wrapping_add(work.segment.payload_len),
    );
    let left = work.gap.map_or(Left::Closed, |gap| gap.left);
    let Some(begun) = flow.start(0, place, start, left, &mut work.scan) else {
        return Err(Counter::ScanUnfinished);
    };
    work.window.reopen(payload_at.wrapping_add(begun.offset));
    let mut shared = Shared {
        skb,
        work,
        counts,
        rules,
        settings,
        flow,
        place,
        start,
        step: 0,
        begun,
        outcome: Outcome::Unfinished,
    };
    let context: *mut Shared<'_> = &raw mut shared;
    // SAFETY: the callback gets the context back, and it outlives the call.
    unsafe { bpf_loop(MAX_UNITS, unit as *mut c_void, context.cast(), 0) };
    shared.work.window.close(skb);
    match shared.outcome {
        Outcome::Clean => Ok(()),
        Outcome::Blocked => Err(Counter::Blocked),
        Outcome::ReadFailed => Err(Counter::ReadFailed),
        Outcome::Unfinished => Err(Counter::ScanUnfinished),
        Outcome::Ambiguous if matches!(place, Place::Ahead) => Err(Counter::TooEarly),
        Outcome::Ambiguous => Err(Counter::GapConflict),
    }
}

const CONTINUE: i64 = 0;
const STOP: i64 = 1;

/// One unit of work under `bpf_loop`: refills the window or does one step of the scanner.
extern "C" fn unit(_index: u64, context: *mut Shared<'_>) -> i64 {
    // SAFETY: `scan` passes its own.
    let shared = unsafe { &mut *context };
    let work = &mut *shared.work;
    if !work.window.covers(work.scan.reads_at()) && !advance(shared.skb, work) {
        shared.outcome = Outcome::ReadFailed;
        return STOP;
    }
    let filter = MapFilter {
        mask: shared.settings.filter_mask,
    };
    match work.scan.step(shared.rules, &work.window, &filter) {
        Step::More if shared.begun.first_line_only && work.scan.left_line() => next_scan(shared),
        Step::More => CONTINUE,
        Step::End => end_scan(shared),
        Step::Lookup(digest) => {
            shared.counts.count(Counter::Candidates);
            let Some(entry) = maps::listed(&digest) else {
                return CONTINUE;
            };
            let blocked = entry.action != ACTION_ALERT && shared.settings.monitor == 0;
            // SAFETY: the program's context.
            let interface = unsafe { (*shared.skb).ifindex };
            let location = shared.work.scan.location();
            if !report(&shared.work.segment, interface, location, &entry, blocked) {
                shared.counts.count(Counter::EventLost);
            }
            if !blocked {
                shared.counts.count(Counter::Alerted);
                return CONTINUE;
            }
            shared.outcome = Outcome::Blocked;
            STOP
        }
    }
}

/// A scan came to the end of the payload.
#[inline(always)]
fn end_scan(shared: &mut Shared<'_>) -> i64 {
    let ended = shared
        .flow
        .end(shared.place, shared.begun, &shared.work.scan, shared.rules);
    if let Err(Conflict::Ambiguous | Conflict::Gap) = ended {
        shared.outcome = Outcome::Ambiguous;
        return STOP;
    }
    next_scan(shared)
}

/// Begins the next scan that the segment needs.
#[inline(always)]
fn next_scan(shared: &mut Shared<'_>) -> i64 {
    shared.step += 1;
    let begun = if shared.step < STEPS {
        let (step, place, start) = (shared.step, shared.place, shared.start);
        shared
            .flow
            .start(step, place, start, Left::Closed, &mut shared.work.scan)
    } else {
        None
    };
    let Some(begun) = begun else {
        shared.outcome = Outcome::Clean;
        return STOP;
    };
    shared.begun = begun;
    let payload_at = shared.work.segment.payload_at;
    shared
        .work
        .window
        .reopen(payload_at.wrapping_add(begun.offset));
    CONTINUE
}

/// Moves the window on to the scanner's position.
#[inline(always)]
fn advance(skb: *mut __sk_buff, work: &mut Work) -> bool {
    if !work.window.advance(skb, work.scan.pos) {
        return false;
    }
    work.scan.rebase();
    if !work.window.covers(work.scan.reads_at()) {
        // A candidate longer than the window.
        work.scan.stop_glancing();
    }
    true
}
