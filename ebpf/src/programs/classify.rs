//! One packet, from the frame to the verdict.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use tokenblock_ebpf::{
    blocked::Again,
    packet::{Link, Segment},
    reply::{RST, URG},
    verdict::{Counter, OnHit, Policy, Settings},
};

use super::{
    flow, head,
    judge::judge,
    maps::{self, Counts, Work},
    multipath::{self, Found},
    respond::{Packet, Standing, accuse, respond, respond_again},
    skb,
};

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
    let judged = read(skb, ctx.len(), work, counts, link, direction);
    let reason = match judged {
        Ok(()) => Counter::Clean,
        Err(reason) => reason,
    };
    counts.count(reason);
    // Off unless userspace asks for it at load: the verifier knows the level, and takes the whole of it out.
    debug!(
        ctx,
        "a packet left by way {} of the counters", reason as u32
    );
    let Some(settings) = maps::settings() else {
        return TC_ACT_UNSPEC;
    };
    let packet = Packet {
        skb,
        link,
        direction,
    };
    // Somebody who is not on the path can't tell what the server awaits.
    let standing = Standing {
        may_forbid: work.may_forbid != 0,
        plausible: !work.place.is_early(),
    };
    let on_hit = match reason {
        Counter::Blocked => {
            // Nobody is banned for what others send in his name.
            if standing.plausible && work.heard != 0 {
                accuse(packet, work, settings, counts);
            }
            OnHit::of(settings.on_hit)
        }
        Counter::BlockedAgain => return respond_again(packet, work),
        _ => match policy(reason, settings, direction) {
            Policy::Pass => return TC_ACT_UNSPEC,
            Policy::Drop => return TC_ACT_SHOT,
            Policy::Reset => OnHit::Reset,
        },
    };
    respond(packet, work, standing, on_hit, counts)
}

/// What becomes of a packet that bears no listed token.
#[inline(always)]
fn policy(reason: Counter, settings: &Settings, direction: Direction) -> Policy {
    // Where tokens only are reported, nothing is dropped to keep the stream exact either.
    let watched = settings.monitor != 0 && !matches!(reason, Counter::Banned);
    let other_hook = reason.is_unread() && settings.judged >> direction as u32 & 1 == 0;
    if watched || other_hook {
        return Policy::Pass;
    }
    settings.policies.of(reason)
}

/// Makes a segment that is not urgent of one that is. The urgent byte is no part of the stream that an application
/// reads (RFC 6093 section 3.2), unless it asks for it, and what was urgent first becomes a part of it where a second
/// byte is: so many streams can't be read at once, and no client of HTTP sends any.
#[inline(always)]
fn calm(skb: *mut __sk_buff, segment: &Segment) -> Result<(), Counter> {
    if skb::clear_urgent(skb, segment.tcp_at, segment.urgent) {
        Ok(())
    } else {
        Err(Counter::ReadFailed)
    }
}

#[inline(always)]
fn read(
    skb: *mut __sk_buff,
    len: u32,
    work: &mut Work,
    counts: &mut Counts,
    link: Link,
    direction: Direction,
) -> Result<(), Counter> {
    let parsed = head::read(skb, len, link, &mut work.head, &mut work.segment);
    let (Some(ports), Some(settings)) = (maps::ports(), maps::settings()) else {
        return Err(Counter::OtherPort);
    };
    match parsed {
        Err(Counter::Fragment | Counter::SourceRouted)
            if !ports.contains(work.segment.destination_port) =>
        {
            return Err(Counter::OtherPort);
        }
        parsed => parsed?,
    }
    // SAFETY: the program's context.
    let interface = unsafe { (*skb).ifindex };
    let hook = direction as u32;
    let is_request =
        settings.judged >> hook & 1 != 0 && ports.contains(work.segment.destination_port);
    // Where every port is protected and both ways are judged, a packet is both.
    let is_answer =
        settings.judged >> (hook ^ 1) & 1 != 0 && ports.contains(work.segment.source_port);
    if is_answer {
        flow::hear_answer(
            skb,
            &work.segment,
            interface,
            direction,
            settings,
            &mut work.gap_key.flow,
        )?;
    }
    if !is_request {
        return Err(if is_answer {
            Counter::Answer
        } else {
            Counter::OtherPort
        });
    }
    if maps::is_banned(&work.segment) {
        return Err(Counter::Banned);
    }
    if work.segment.has_other_options() && settings.monitor == 0 {
        match multipath::hide(skb, &work.segment) {
            Found::Nothing => {}
            Found::Hidden => counts.count(Counter::Multipath),
            Found::Failed => return Err(Counter::ReadFailed),
        }
    }
    if work.segment.flags & (URG | RST) != 0 {
        if work.segment.flags & RST != 0 {
            flow::hear_reset(&work.segment, interface, direction, &mut work.gap_key.flow);
        }
        if work.segment.flags & URG != 0 && settings.monitor == 0 {
            calm(skb, &work.segment)?;
            counts.count(Counter::Urgent);
        }
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
    let Some(rules) = maps::rules() else {
        return Err(Counter::OtherPort);
    };
    judge(skb, work, counts, rules, settings, direction)
}
