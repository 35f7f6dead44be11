//! One packet, from the frame to the verdict.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_loop,
    programs::TcContext,
};
use tokenblock_ebpf::{
    blocked::Again,
    packet::{HEAD, Link, parse},
    rules::Rules,
    scan::Step,
    verdict::{ACTION_ALERT, Counter, Settings},
};

use super::{
    maps::{self, Counts, MapFilter, Work},
    report::report,
    respond::{Packet, Standing, respond, respond_again},
    skb,
};

/// Bounds the loop; a payload of 64 KiB takes at most three units a byte (read, look up twice).
const MAX_UNITS: u32 = 1 << 18;

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into the host.
    Ingress = 0,
    /// Out of the host.
    Egress = 1,
}

/// Judges a packet: `TC_ACT_SHOT` drops it, `TC_ACT_UNSPEC` hands it on to the next program.
#[inline(always)]
pub fn classify(ctx: &TcContext, link: Link, direction: Direction) -> i32 {
    let skb = ctx.as_ptr().cast::<__sk_buff>();
    let (Some(work), Some(counts)) = (maps::work(direction as u32), maps::counts()) else {
        return TC_ACT_UNSPEC;
    };
    // SAFETY: this CPU's and this hook's own.
    let work = unsafe { &mut *work };
    let judged = judge(skb, ctx.len(), work, counts, link);
    // The first bytes of a frame hold the first of its payload, where the query of a request stands.
    // SAFETY: `head` holds HEAD bytes and more.
    unsafe { skb::clear::<{ HEAD as u32 }>(skb, work.head.as_mut_ptr(), HEAD as u32) };
    let packet = Packet {
        skb,
        link,
        direction,
    };
    let reason = match judged {
        Ok(()) => Counter::Clean,
        Err(reason) => reason,
    };
    counts.count(reason);
    match reason {
        Counter::Blocked => maps::settings().map_or(TC_ACT_SHOT, |settings| {
            respond(packet, work, STANDING, settings, counts)
        }),
        Counter::BlockedAgain => respond_again(packet, work),
        Counter::Banned | Counter::ScanUnfinished | Counter::ReadFailed => TC_ACT_SHOT,
        _ => TC_ACT_UNSPEC,
    }
}

/// Nothing is known of the flow but the packet.
const STANDING: Standing = Standing {
    may_forbid: true,
    plausible: true,
};

#[inline(always)]
fn judge(
    skb: *mut __sk_buff,
    len: u32,
    work: &mut Work,
    counts: &mut Counts,
    link: Link,
) -> Result<(), Counter> {
    // SAFETY: `head` holds HEAD bytes and more.
    if !unsafe { skb::load::<{ HEAD as u32 }>(skb, 0, work.head.as_mut_ptr(), len) } {
        return Err(Counter::NotIp);
    }
    parse(&work.head, len, link, &mut work.segment)?;
    let (Some(ports), Some(rules), Some(settings)) =
        (maps::ports(), maps::rules(), maps::settings())
    else {
        return Err(Counter::OtherPort);
    };
    if !ports.contains(work.segment.destination_port) {
        return Err(Counter::OtherPort);
    }
    if maps::is_banned(&work.segment) {
        return Err(Counter::Banned);
    }
    if let Some((again, flow)) = maps::blocked(&work.segment) {
        if again == Again::Pass {
            return Err(Counter::NoPayload);
        }
        work.again = again;
        work.blocked = *flow;
        return Err(Counter::BlockedAgain);
    }
    if work.segment.payload_len == 0 {
        return Err(Counter::NoPayload);
    }
    counts.add(Counter::ScannedBytes, u64::from(work.segment.payload_len));
    scan(skb, work, counts, rules, settings)
}

/// What the units of one packet share; lies on the stack, so that the pointers stay typed for the verifier.
struct Shared<'a> {
    skb: *mut __sk_buff,
    work: &'a mut Work,
    counts: &'a mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
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
}

#[inline(always)]
fn scan(
    skb: *mut __sk_buff,
    work: &mut Work,
    counts: &mut Counts,
    rules: &'static Rules,
    settings: &'static Settings,
) -> Result<(), Counter> {
    let payload_at = work.segment.payload_at;
    work.window.open(
        payload_at,
        payload_at.wrapping_add(work.segment.payload_len),
    );
    work.scan.restart();
    let mut shared = Shared {
        skb,
        work,
        counts,
        rules,
        settings,
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
        Step::More => CONTINUE,
        Step::End => {
            shared.outcome = Outcome::Clean;
            STOP
        }
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

/// Moves the window on to the scanner's position.
#[inline(always)]
fn advance(skb: *mut __sk_buff, work: &mut Work) -> bool {
    if !work.window.advance(skb, work.scan.pos) {
        return false;
    }
    work.scan.pos = 0;
    if !work.window.covers(work.scan.reads_at()) {
        // A candidate longer than the window.
        work.scan.stop_glancing();
    }
    true
}
