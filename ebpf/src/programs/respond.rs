//! Answering a blocked request: the packet that bore it becomes the answer.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{
        bpf_clone_redirect, bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail,
        bpf_skb_store_bytes,
    },
};
use tokenblock_ebpf::{
    blocked::{Again, Blocked},
    packet::{Link, Segment},
    reply::{
        ACK, CHECKSUM_AT, FORBIDDEN, FORBIDDEN_LEN, IPV4, IPV6, MAX_PADDING, Reply, SYN, TCP_BARE,
        TCP_STAMPED, Timestamps, To, Words,
    },
    swar,
    verdict::{Counter, OnHit, Settings},
};

use super::{
    classify::Direction,
    flow,
    maps::{self, Counts, Replies, Work},
    report::report_ban,
    skb,
};

/// The index of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// The packet that is answered, and where.
#[derive(Clone, Copy)]
pub struct Packet {
    pub skb: *mut __sk_buff,
    pub link: Link,
    pub direction: Direction,
}

/// What is known of the flow of a blocked request.
#[derive(Clone, Copy)]
pub struct Standing {
    /// The server owes the client nothing, so that a 403 is understood as the answer to the blocked request.
    pub may_forbid: bool,
    /// The segment stands where the server awaits it. One that does not may be forged by somebody who is not
    /// on the path: only the packet is dropped then, and the flow lives on.
    pub plausible: bool,
}

/// Counts the request in `work`, which bears a listed token, against its source.
#[inline(always)]
pub fn accuse(packet: Packet, work: &mut Work, settings: &Settings, counts: &mut Counts) {
    if maps::offend(work, settings) {
        counts.count(Counter::Bans);
        // SAFETY: the program's context.
        if !report_ban(&work.segment, unsafe { (*packet.skb).ifindex }) {
            counts.count(Counter::EventLost);
        }
    }
}

/// Answers the request in `work`, which is blocked, and remembers its flow. Gives the program's verdict.
#[inline(always)]
pub fn respond(
    packet: Packet,
    work: &mut Work,
    standing: Standing,
    on_hit: OnHit,
    counts: &mut Counts,
) -> i32 {
    if !standing.plausible {
        return TC_ACT_SHOT;
    }
    let segment = &work.segment;
    let on_hit = match on_hit {
        OnHit::Forbid if !standing.may_forbid || segment.flags & (SYN | ACK) != ACK => OnHit::Reset,
        chosen => chosen,
    };
    // In the work space: the stack takes no unaligned stores, and LLVM makes some.
    work.blocked = Blocked::by(segment, on_hit, maps::now());
    maps::block(segment, &work.blocked);
    let counter = match on_hit {
        OnHit::Drop => return TC_ACT_SHOT,
        OnHit::Reset => Counter::Reset,
        OnHit::Forbid => Counter::Forbidden,
    };
    let verdict = answer(packet, segment, on_hit);
    if work.tracked != 0 && verdict == Some(TC_ACT_UNSPEC) {
        flow::hear_own_reset(&work.gap_key.flow, segment.sequence);
    }
    counts.count(if verdict.is_some() {
        counter
    } else {
        Counter::AnswerFailed
    });
    verdict.unwrap_or(TC_ACT_SHOT)
}

/// Answers both ends; `None` where the packet can't be made an answer.
#[inline(always)]
fn answer(packet: Packet, segment: &Segment, on_hit: OnHit) -> Option<i32> {
    // SAFETY: this CPU's and this hook's own.
    let Replies { client, server } = unsafe { &mut *maps::replies(packet.direction as u32)? };
    let words = match on_hit {
        OnHit::Forbid => Words::forbid(segment, timestamps(packet.skb, segment)),
        OnHit::Drop | OnHit::Reset => Words::reset_client(segment),
    };
    let server_knows = segment.flags & SYN == 0;
    // Both before one is sent: on loopback it passes this very hook, and `segment` is another's then.
    if !client.write(segment, &words, To::Client)
        || !server.write(segment, &Words::reset_server(segment), To::Server)
        || !turn(packet, client)
    {
        return None;
    }
    // SAFETY: the program's context; the clone is the kernel's.
    unsafe { bpf_clone_redirect(packet.skb, (*packet.skb).ifindex, back(packet)) };
    if !server_knows {
        return Some(TC_ACT_SHOT);
    }
    turn(packet, server).then_some(TC_ACT_UNSPEC)
}

/// Does with another segment of a blocked flow what was found to be done. Gives the program's verdict.
#[inline(always)]
pub fn respond_again(packet: Packet, work: &Work) -> i32 {
    answer_again(packet, &work.segment, &work.blocked, work.again).unwrap_or(TC_ACT_SHOT)
}

#[inline(always)]
fn answer_again(packet: Packet, segment: &Segment, flow: &Blocked, again: Again) -> Option<i32> {
    let words = match again {
        Again::Reset => Words::reset_client(segment),
        Again::Forbid => Words {
            acknowledgment: flow.next,
            ..Words::forbid(segment, timestamps(packet.skb, segment))
        },
        Again::Acknowledge => Words::acknowledge(
            flow.after_answer(),
            flow.next,
            timestamps(packet.skb, segment),
        ),
        Again::Forget | Again::Pass | Again::Drop => return None,
    };
    // SAFETY: this CPU's and this hook's own.
    let reply = unsafe { &mut (*maps::replies(packet.direction as u32)?).client };
    if !reply.write(segment, &words, To::Client) || !turn(packet, reply) {
        return None;
    }
    // SAFETY: the program's context.
    Some(unsafe { bpf_redirect((*packet.skb).ifindex, back(packet)) } as i32)
}

/// The way back to the sender: out again, or in again for a packet that was on its way out. Loopback brings in
/// what goes out, and takes nothing in by itself ("martian source").
#[inline(always)]
fn back(packet: Packet) -> u64 {
    // SAFETY: the program's context.
    let interface = unsafe { (*packet.skb).ifindex };
    match packet.direction {
        Direction::Egress if interface != LOOPBACK => u64::from(BPF_F_INGRESS),
        Direction::Ingress | Direction::Egress => 0,
    }
}

/// The timestamps of the packet, where it has them in the usual place.
#[inline(always)]
fn timestamps(packet: *mut __sk_buff, segment: &Segment) -> Timestamps {
    const LEN: u32 = TCP_STAMPED - TCP_BARE;
    let mut words = [swar::zero(), swar::zero()];
    if segment.payload_at.wrapping_sub(segment.tcp_at) >= TCP_STAMPED {
        let at = segment.tcp_at.wrapping_add(TCP_BARE);
        // SAFETY: the program's context; `words` holds 16 bytes. A failed read clears them.
        unsafe { skb::read::<LEN>(packet, at, words.as_mut_ptr().cast()) };
    }
    let [first, second] = words;
    Timestamps::read([
        (first as u32).swap_bytes(),
        ((first >> 32) as u32).swap_bytes(),
        (second as u32).swap_bytes(),
    ])
}

/// Makes the packet the reply, and swaps its link addresses: towards the client for the first reply, and back
/// towards the server for the second.
///
/// Cut first: that makes a GRO packet of many segments a plain one, and its data writable.
#[inline(never)]
fn turn(packet: Packet, reply: &Reply) -> bool {
    let skb = packet.skb;
    // SAFETY: the program's context.
    if unsafe { bpf_skb_change_tail(skb, reply.frame_len(), 0) } != 0 {
        return false;
    }
    let tcp_at = reply.tcp_at;
    // SAFETY: each pointer is to as many bytes as are stored.
    unsafe {
        let ip = reply.ip.as_ptr().cast::<u8>();
        let stored = match reply.version {
            4 => store::<IPV4>(skb, reply.ip_at, ip),
            _ => store::<IPV6>(skb, reply.ip_at, ip),
        };
        let tcp = reply.tcp.as_ptr().cast::<u8>();
        let stored = stored
            && match reply.tcp_len {
                TCP_STAMPED => store::<TCP_STAMPED>(skb, tcp_at, tcp),
                _ => store::<TCP_BARE>(skb, tcp_at, tcp),
            };
        let payload_at = tcp_at.wrapping_add(reply.tcp_len);
        stored
            && (reply.payload_len == 0
                || store::<FORBIDDEN_LEN>(skb, payload_at, FORBIDDEN.as_ptr()))
            && pad(skb, reply)
            && sum(skb, reply)
            && (packet.link == Link::Ip || swap_link_addresses(skb))
    }
}

/// Stores `N` bytes in the packet.
///
/// # Safety
/// `skb` is the program's context and `from` points to `N` bytes.
#[inline(always)]
unsafe fn store<const N: u32>(skb: *mut __sk_buff, at: u32, from: *const u8) -> bool {
    // SAFETY: the caller's promise.
    unsafe { bpf_skb_store_bytes(skb, at, from.cast(), N, 0) == 0 }
}

/// Fills the place of IP options and extension headers.
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
unsafe fn pad(skb: *mut __sk_buff, reply: &Reply) -> bool {
    if reply.padding_len == 0 {
        return true;
    }
    let at = reply.tcp_at.wrapping_sub(reply.padding_len);
    let from = reply.padding.as_ptr().cast::<u8>();
    let n = swar::opaque(reply.padding_len) & (MAX_PADDING - 1);
    // SAFETY: less than MAX_PADDING bytes.
    n != 0 && unsafe { bpf_skb_store_bytes(skb, at, from.cast(), n, 0) == 0 }
}

/// Sets the TCP checksum: whole, or the pseudo-header's alone where the packet says that the device is to
/// complete it (loopback, veth, GRO). The kernel knows which: it leaves out the second sum then.
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
unsafe fn sum(skb: *mut __sk_buff, reply: &Reply) -> bool {
    let at = reply.tcp_at.wrapping_add(CHECKSUM_AT);
    let of = |sum: u32| u64::from((sum as u16).to_be());
    // SAFETY: the caller's promise.
    unsafe {
        bpf_l4_csum_replace(
            skb,
            at,
            0,
            of(reply.pseudo_sum),
            u64::from(BPF_F_PSEUDO_HDR),
        ) == 0
            && bpf_l4_csum_replace(skb, at, 0, of(reply.tcp_sum), 0) == 0
    }
}

/// Swaps the addresses of an Ethernet header.
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
unsafe fn swap_link_addresses(skb: *mut __sk_buff) -> bool {
    const LEN: u32 = 6;
    // A word each: the stack takes no unaligned access.
    let (mut destination, mut source) = (swar::zero(), swar::zero());
    // SAFETY: the caller's promise; a word holds LEN bytes.
    unsafe {
        skb::read::<LEN>(skb, 0, (&raw mut destination).cast())
            && skb::read::<LEN>(skb, LEN, (&raw mut source).cast())
            && store::<LEN>(skb, 0, (&raw const source).cast())
            && store::<LEN>(skb, LEN, (&raw const destination).cast())
    }
}
