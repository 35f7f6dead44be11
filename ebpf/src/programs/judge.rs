//! One segment of a request: placed in its flow, scanned, passed or not.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_loop};
use tokenblock_ebpf::{
    behind::BEHIND,
    flow::{Conflict, Flow, Gap, GapKey, Left, Place, Rest, STEPS},
    reply::SYN,
    rules::Rules,
    scan::{Source as _, Step, begins_request},
    swar::{self, forget_registers},
    verdict::{ACTION_ALERT, Counter, Policy, Settings},
};

use super::{
    classify::Direction,
    copies,
    flow::{lock, of_request, unlock},
    maps::{self, Counts, MapFilter, Work},
    memo::recall,
    report::report,
    skb,
};

/// Bounds the loop; a payload of 64 KiB takes at most three units a byte (read, look up twice).
const MAX_UNITS: u32 = 1 << 18;
/// Judges the segment in `work`.
#[inline(always)]
pub fn judge(
    skb: *mut __sk_buff,
    work: &mut Work,
    counts: &mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
    direction: Direction,
) -> Result<(), Counter> {
    // SAFETY: the program's context.
    let interface = unsafe { (*skb).ifindex };
    let Some((flow, tracked)) =
        of_request(&work.segment, interface, direction, &mut work.gap_key.flow)
    else {
        return Err(Counter::FlowTableFull);
    };
    work.tracked = u32::from(tracked);
    work.heard = u32::from(tracked && flow.newcomer == 0);
    // The lock orders memory: what is read of the list from here on is of this generation or a later one.
    work.generation = maps::generation();
    if !lock(flow) {
        return Err(Counter::FlowBusy);
    }
    let judged = if matches!(direction, Direction::Egress) {
        judge_or_compare(skb, work, counts, rules, settings, flow)
    } else {
        judge_in_flow(skb, work, counts, rules, settings, flow)
    };
    unlock(flow);
    judged
}

/// Where it may be lost behind the programs, second copies pass that say what was passed.
#[inline(always)]
fn judge_or_compare(
    skb: *mut __sk_buff,
    work: &mut Work,
    counts: &mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
    flow: &mut Flow,
) -> Result<(), Counter> {
    if copies::is_copy(skb, work, flow) {
        return Err(Counter::Copied);
    }
    judge_in_flow(skb, work, counts, rules, settings, flow)?;
    copies::note(skb, work, flow);
    Ok(())
}

#[inline(always)]
fn judge_in_flow(
    skb: *mut __sk_buff,
    work: &mut Work,
    counts: &mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
    flow: &mut Flow,
) -> Result<(), Counter> {
    let [start, end] = work.bounds();
    let now = work.look_at_clock();
    if flow.pass_trusted(start, end, settings.trust_after, now) {
        return Err(Counter::Trusted);
    }
    forget_registers();
    work.gap_key.at = start;
    work.gap_key.epoch = flow.epoch;
    work.has_gap = 0;
    work.gap.left = Left::Closed;
    if flow.has_gaps() {
        work.gap_key.at = flow.noted_under(start, end);
        if let Some(gap) = maps::gap(&work.gap_key) {
            work.gap.copy(gap);
            work.has_gap = 1;
            if flow.wants_state(start, &work.gap)
                && let Some(state) = maps::state(&work.gap_key)
            {
                flow.take_state(start, state, &work.gap);
            }
        }
    }
    forget_registers();
    let place = if work.segment.flags & SYN == 0 {
        flow.place(start, end, work.segment.stamp, now, gap_of(work))
    } else {
        flow.place_on_syn(start)
    };
    match place {
        Place::Settled => return Err(Counter::Settled),
        Place::TooEarly => return Err(Counter::TooEarly),
        Place::Duplicate => return Err(Counter::Duplicate),
        Place::OutOfWindow => return Err(Counter::OutOfWindow),
        Place::Old => return Err(Counter::OldTimestamp),
        Place::First => note(Counter::MidStream, counts, settings)?,
        Place::Next
        | Place::Ahead
        | Place::Inside
        | Place::Filler
        | Place::Recovery
        | Place::Repeat => {}
    }
    counts.add(Counter::ScannedBytes, u64::from(work.segment.payload_len));
    work.place = place;
    work.start = start;
    work.may_forbid = u32::from(flow.owes_nothing(work.segment.acknowledgment));
    forget_registers();
    let payload_at = work.segment.payload_at;
    work.window.open(
        payload_at,
        payload_at.wrapping_add(work.segment.payload_len),
    );
    if !work.window.advance(skb, 0) {
        return Err(Counter::ReadFailed);
    }
    forget_registers();
    let judged = judge_held(skb, work, counts, rules, settings, flow);
    work.window.close(skb);
    judged
}

/// Judges the segment of which the window holds as much as it can.
#[inline(always)]
fn judge_held(
    skb: *mut __sk_buff,
    work: &mut Work,
    counts: &mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
    flow: &mut Flow,
) -> Result<(), Counter> {
    let end = work.start.wrapping_add(work.segment.payload_len);
    if recall(skb, work, flow, rules)? {
        counts.count(Counter::Repeated);
        flow.pass_known(work.start, end, work.now);
        return Ok(());
    }
    forget_registers();
    flow.open(work.place, work.start, end, &work.gap);
    forget_registers();
    scan(skb, work, counts, rules, settings, flow)?;
    if flow.saw_http2() {
        note(Counter::Http2, counts, settings)?;
    }
    if flow.is_ambiguous() {
        note(Counter::AmbiguousFraming, counts, settings)?;
    }
    if work.tracked == 0 {
        let ends = matches!(flow.leaves(), Left::Closed | Left::Line);
        let alone = ends && begins(skb, work.segment.payload_at);
        return if alone && maps::take_turn(&work.gap_key.flow, work.start, end) {
            Ok(())
        } else {
            Err(Counter::FlowTableFull)
        };
    }
    forget_registers();
    let end = work.start.wrapping_add(work.segment.payload_len);
    pass(skb, work, rules, flow, end)?;
    counts.add(Counter::Ahead, u64::from(work.place.is_early()));
    Ok(())
}

/// Whether a segment of which no flow is kept begins as a request does. What begins elsewhere may be the rest of a candidate:
/// the receiver would keep it for the beginning, which may come once there is room for a flow. One that overlaps what has
/// passed would be read from its middle on; see [`maps::take_turn`].
#[inline(always)]
fn begins(skb: *mut __sk_buff, payload_at: u32) -> bool {
    let mut word = swar::zero();
    // SAFETY: a word holds as many bytes.
    let read = unsafe { skb::read::<8>(skb, payload_at, (&raw mut word).cast()) };
    read && begins_request(word)
}

/// Passes the segment that was scanned, where that may be, and notes what has to be.
#[inline(always)]
fn pass(
    skb: *mut __sk_buff,
    work: &mut Work,
    rules: &'static Rules,
    flow: &mut Flow,
    end: u32,
) -> Result<(), Counter> {
    let (place, start, now) = (work.place, work.start, work.now);
    if place.shows_first() {
        work.rest.copy(&work.gap);
        if !keep_behind(skb, work) {
            return Err(Counter::ReadFailed);
        }
        flow.digest_first(&work.gap, rules);
    }
    forget_registers();
    if let Some(at) = flow.keeps_state_at() {
        work.gap_key.at = at;
        work.gap_key.epoch = flow.epoch;
        maps::keep_state(&work.gap_key, flow.state());
    }
    let passed = flow.pass(place, start, end, now, &mut work.gap);
    if place.shows_first() {
        flow.seal_behind(&mut work.gap, rules);
    }
    work.gap_key.epoch = flow.epoch;
    match passed {
        Ok(None) => {}
        Ok(Some(at)) => {
            work.gap_key.at = at;
            note_gap(&work.gap_key, &work.gap, flow);
            if matches!(place, Place::Filler) && matches!(work.gap.left, Left::Open) {
                maps::keep_state(&work.gap_key, flow.next_state());
            }
            if flow.rest(end, &mut work.rest) {
                work.gap_key.at = end;
                note_gap(&work.gap_key, &work.rest, flow);
                if matches!(work.rest.left, Left::Open) {
                    maps::keep_state(&work.gap_key, flow.next_state());
                }
            }
        }
        Err(Conflict::Ambiguous) if matches!(place, Place::Repeat) => {
            return Err(Counter::Duplicate);
        }
        Err(Conflict::Ambiguous) => return Err(Counter::TooEarly),
        Err(Conflict::Gap) => return Err(Counter::GapConflict),
    }
    if flow.remember(start, end, &mut work.gap) {
        work.gap_key.at = start;
        note_gap(&work.gap_key, &work.gap, flow);
    }
    Ok(())
}

/// Notes a gap, or what was passed. Where there is no room all of the flow's is forgotten: what stands there was true
/// before.
#[inline(always)]
fn note_gap(key: &GapKey, gap: &Gap, flow: &mut Flow) {
    if !maps::note_gap(key, gap) {
        flow.forget_gaps();
    }
}

/// Keeps the first bytes of the segment, which stands behind a gap.
#[inline(always)]
fn keep_behind(skb: *mut __sk_buff, work: &mut Work) -> bool {
    let (at, len) = (work.segment.payload_at, work.segment.payload_len);
    let to = work.gap.behind.as_mut_ptr();
    work.gap.behind.keep(len);
    // SAFETY: there is room for BEHIND bytes.
    unsafe {
        skb::clear::<BEHIND>(skb, to, BEHIND);
        skb::load::<BEHIND>(skb, at, to, len)
    }
}

/// Counts what may be passed for all that it is judged in part, where the settings say so.
#[inline(always)]
fn note(reason: Counter, counts: &mut Counts, settings: &Settings) -> Result<(), Counter> {
    if settings.monitor == 0 && !matches!(settings.policies.of(reason), Policy::Pass) {
        return Err(reason);
    }
    counts.count(reason);
    Ok(())
}

#[inline(always)]
fn gap_of(work: &Work) -> Option<&Gap> {
    if work.has_gap == 0 {
        None
    } else {
        Some(&work.gap)
    }
}

/// What the units of one packet share; lies on the stack, so that the pointers stay typed for the verifier. What
/// changes from unit to unit lies in `work`: here each value of it would be one more walk through all units.
struct Shared<'a> {
    skb: *mut __sk_buff,
    work: &'a mut Work,
    counts: &'a mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
    flow: &'a mut Flow,
}

/// How the scan of a payload ended.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    Unfinished = 0,
    Clean = 1,
    Blocked = 2,
    ReadFailed = 3,
    Ambiguous = 4,
}

#[inline(always)]
fn scan(
    skb: *mut __sk_buff,
    work: &mut Work,
    counts: &mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
    flow: &mut Flow,
) -> Result<(), Counter> {
    // Each constant that is alive here, in a register or on the stack, would be one more walk through all units.
    forget_registers();
    let Some(begun) = flow.start(0, work.start, &mut work.scan, rules) else {
        return Err(Counter::ScanUnfinished);
    };
    work.step = 0;
    work.begun = begun;
    work.outcome = Outcome::Unfinished;
    if begun.offset != 0 {
        // What is in front of it was passed. The first unit reads what is shown.
        let payload_at = work.segment.payload_at;
        (work.window).reopen(payload_at.wrapping_add(begun.offset), false);
    }
    forget_registers();
    let mut shared = Shared {
        skb,
        work,
        counts,
        rules,
        settings,
        flow,
    };
    let context: *mut Shared<'_> = &raw mut shared;
    // SAFETY: the callback gets the context back, and it outlives the call.
    unsafe { bpf_loop(MAX_UNITS, unit as *mut c_void, context.cast(), 0) };
    if shared.work.begun.behind {
        // The gap is closed, and what is kept of it lies open. SAFETY: BEHIND bytes.
        unsafe { skb::clear::<BEHIND>(skb, shared.work.gap.behind.as_mut_ptr(), BEHIND) };
    }
    shared.work.scan.wipe();
    match shared.work.outcome {
        Outcome::Clean => Ok(()),
        Outcome::Blocked => Err(Counter::Blocked),
        Outcome::ReadFailed => Err(Counter::ReadFailed),
        Outcome::Unfinished => Err(Counter::ScanUnfinished),
        Outcome::Ambiguous if matches!(shared.work.place, Place::Repeat) => Err(Counter::Duplicate),
        Outcome::Ambiguous if shared.work.place.is_early() || shared.flow.is_guessed() => {
            Err(Counter::TooEarly)
        }
        Outcome::Ambiguous => Err(Counter::GapConflict),
    }
}

const CONTINUE: i64 = 0;
const STOP: i64 = 1;

/// One unit of work under `bpf_loop`: refills the window or does one step of the scanner.
extern "C" fn unit(_index: u64, context: *mut Shared<'_>) -> i64 {
    // SAFETY: `scan` passes its own.
    let shared = unsafe { &mut *context };
    if shared.work.begun.is_over(&shared.work.scan) {
        return next_scan(shared);
    }
    forget_registers();
    let work = &mut *shared.work;
    if !work.window.covers(work.scan.reads_at()) && !advance(shared.skb, work) {
        work.outcome = Outcome::ReadFailed;
        return STOP;
    }
    forget_registers();
    let filter = MapFilter {
        mask: shared.settings.filter_mask,
    };
    match work.scan.step(shared.rules, &work.window, &filter) {
        Step::More => {
            // The end is seen without another unit.
            if shared.work.window.is_last() && shared.work.scan.is_done(shared.work.window.end()) {
                end_scan(shared)
            } else {
                CONTINUE
            }
        }
        Step::End => end_scan(shared),
        Step::Lookup(digest) => {
            shared.counts.count(Counter::Candidates);
            let Some(entry) = maps::listed(&digest.key()) else {
                return CONTINUE;
            };
            let blocked = entry.action != ACTION_ALERT && shared.settings.monitor == 0;
            let place = shared.work.place;
            if blocked && place.shows_first() {
                // It comes again in its place, and is one hit then.
                shared.work.outcome = Outcome::Ambiguous;
                return STOP;
            }
            // SAFETY: the program's context.
            let interface = unsafe { (*shared.skb).ifindex };
            let location = shared.work.scan.location();
            if !report(&shared.work.segment, interface, location, &entry, blocked) {
                shared.counts.count(Counter::EventLost);
            }
            if !blocked {
                shared.counts.count(Counter::Alerted);
                shared.flow.reports();
                return CONTINUE;
            }
            shared.work.outcome = Outcome::Blocked;
            STOP
        }
    }
}

/// A scan came to the end of the payload, or of what the window shows of it.
#[inline(always)]
fn end_scan(shared: &mut Shared<'_>) -> i64 {
    let window = &mut shared.work.window;
    match (shared.flow).come_to_end(&mut shared.work.scan, window.end_of_payload()) {
        Rest::Until(end) => {
            window.widen();
            window.narrow(end);
            return CONTINUE;
        }
        Rest::Known => shared.counts.count(Counter::Repeated),
        Rest::None => {}
    }
    forget_registers();
    let (begun, scan) = (shared.work.begun, &mut shared.work.scan);
    let ended = shared.flow.end(begun, scan, shared.rules);
    if let Err(Conflict::Ambiguous | Conflict::Gap) = ended {
        shared.work.outcome = Outcome::Ambiguous;
        return STOP;
    }
    forget_registers();
    next_scan(shared)
}

/// Begins the next scan that the segment needs.
#[inline(always)]
fn next_scan(shared: &mut Shared<'_>) -> i64 {
    shared.work.step += 1;
    let begun = if shared.work.step < STEPS {
        let (step, start) = (shared.work.step, shared.work.start);
        shared
            .flow
            .start(step, start, &mut shared.work.scan, shared.rules)
    } else {
        None
    };
    let Some(begun) = begun else {
        shared.work.outcome = Outcome::Clean;
        return STOP;
    };
    shared.work.begun = begun;
    if begun.behind {
        shared.flow.seal_behind(&mut shared.work.gap, shared.rules);
        shared.work.window.show(&shared.work.gap.behind);
        return CONTINUE;
    }
    let payload_at = shared.work.segment.payload_at;
    shared
        .work
        .window
        .reopen(payload_at.wrapping_add(begun.offset), begun.first_line_only);
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
