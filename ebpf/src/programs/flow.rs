//! The flow that a packet is of: found, locked, told of what its server says.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_loop},
};
use tokenblock_ebpf::{
    flow::{Flow, FlowKey},
    packet::Segment,
    reply::{ACK, FIN, RST, SYN},
    response::{HEAD, Head as ResponseHead, LAST_CHUNK, Said, is_last_chunk},
    swar::{self, least},
    verdict::{Counter, OnHit, Settings},
};

use super::{
    classify::Direction,
    maps::{self, Handshake},
    skb,
};

/// The flow of a request that passes this hook of this interface. Another hook or way that the same
/// segment passes keeps its own books.
#[inline(always)]
fn key_of_request(segment: &Segment, interface: u32, hook: Direction, key: &mut FlowKey) {
    key.client = segment.source;
    key.server = segment.destination;
    key.set_ports(segment.source_port, segment.destination_port);
    key.passes = maps::way(interface) << 1 | hook as u32;
}

/// The flow of the requests that this packet of a server answers, which pass the other hook.
#[inline(always)]
fn key_of_answer(segment: &Segment, interface: u32, hook: Direction, key: &mut FlowKey) {
    key.client = segment.destination;
    key.server = segment.source;
    key.set_ports(segment.destination_port, segment.source_port);
    key.passes = maps::way(interface) << 1 | (hook as u32 ^ 1);
}

/// The flow of a request segment, and whether it could be kept on record. One that could not is judged in a
/// flow of this CPU and hook that stands in, and lies in the same map: another's pointer would be another type to
/// the verifier, and one more walk through all units.
#[inline(always)]
pub fn of_request(
    segment: &Segment,
    interface: u32,
    hook: Direction,
    key: &mut FlowKey,
) -> Option<(&'static mut Flow, bool)> {
    key_of_request(segment, interface, hook, key);
    let found = maps::flow(key).or_else(|| begin(segment, key, hook));
    let kept = found.is_some();
    let flow = if kept {
        found
    } else {
        // SAFETY: no arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        maps::stand_in(cpu, hook as u32)
    };
    // SAFETY: an entry lives while its program runs; what is written is guarded by `lock`.
    let flow = unsafe { &mut *flow? };
    if !kept {
        flow.forget();
    }
    Some((flow, kept))
}

/// A flow that begins with this segment; none where there is no room for it. Who has not heard the server's SYN may be
/// anybody, who need not even be where he says: such newcomers have a share of the table, which they can fill, and no more.
#[inline(always)]
fn begin(segment: &Segment, key: &FlowKey, hook: Direction) -> Option<*mut Flow> {
    let handshake = maps::handshake(key);
    let heard = handshake.is_some_and(|handshake| handshake.is_heard(segment.acknowledgment));
    if !heard && !maps::takes_newcomers() {
        return None;
    }
    let added = maps::add_flow(key, hook as u32);
    let begun = maps::flow(key)?;
    if !added {
        return Some(begun);
    }
    // SAFETY: as in `of_request`.
    let flow = unsafe { &mut *begun };
    if !heard {
        flow.newcomer = 1;
        maps::add_newcomer();
    }
    if let Some(handshake) = handshake {
        maps::drop_handshake(key);
        flow.accept(handshake.acknowledgment, maps::now());
        if handshake.passed != 0 {
            flow.begin_adrift();
        }
    }
    Some(begun)
}

/// Tries for a flow that another CPU has: some 160 us, where a segment of 64 KiB of random bytes takes 14 to 42 (the machine of
/// docs/benchmarks.md, in its fast and slow hours).
const TRIES: u32 = 1 << 15;

/// Takes the flow for this CPU; waits a little where another has it, and gives false where it has it for long.
#[inline(always)]
pub fn lock(flow: &mut Flow) -> bool {
    // Hardly ever has another one it.
    try_lock(flow) || tokenblock_lock(flow) != 0
}

/// Waits for the flow, under a name that other objects could call, since such a function the verifier walks through once.
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_lock(flow: *mut Flow) -> u64 {
    // SAFETY: `lock` passes a reference; the verifier sees to the rest.
    let Some(flow) = (unsafe { flow.as_mut() }) else {
        return 0;
    };
    let mut wait = Wait { flow, locked: 0 };
    let context: *mut Wait<'_> = &raw mut wait;
    // SAFETY: the callback gets the context back, and it outlives the call.
    unsafe { bpf_loop(TRIES, try_again as *mut c_void, context.cast(), 0) };
    wait.locked
}

/// What the tries for a flow share.
struct Wait<'a> {
    flow: &'a mut Flow,
    locked: u64,
}

/// One try under `bpf_loop`.
extern "C" fn try_again(_index: u64, context: *mut Wait<'_>) -> i64 {
    // SAFETY: `tokenblock_lock` passes its own.
    let wait = unsafe { &mut *context };
    // A look first: the exchange takes the cache line away from who has the lock.
    // SAFETY: another CPU may write it at any moment; it is one word.
    let taken = unsafe { (&raw const wait.flow.lock).read_volatile() };
    if taken == 0 && try_lock(wait.flow) {
        wait.locked = 1;
        return 1;
    }
    0
}

/// Takes the flow for this CPU; false where another has it.
#[inline(always)]
fn try_lock(flow: &mut Flow) -> bool {
    let lock: *mut u32 = &raw mut flow.lock;
    let held: u64;
    // `core` has no compare-and-exchange for this target; the instruction is there since v3 (kernel commit
    // 5ffa25502b5a) and orders memory fully.
    // SAFETY: the lock is aligned and alive as long as the flow.
    unsafe {
        core::arch::asm!(
            "w0 = cmpxchg32_32(r1 + 0, w0, w2)",
            in("r1") lock,
            in("r2") 1_u64,
            inout("r0") 0_u64 => held,
        );
    }
    held == 0
}

/// Gives the flow back.
#[inline(always)]
pub fn unlock(flow: &mut Flow) {
    let lock: *mut u32 = &raw mut flow.lock;
    // SAFETY: as in `lock`. There a plain store is not seen before those in front of it; elsewhere it might be.
    unsafe {
        #[cfg(bpf_target_arch = "x86_64")]
        core::arch::asm!("*(u32 *)(r1 + 0) = w2", in("r1") lock, in("r2") 0_u64);
        #[cfg(not(bpf_target_arch = "x86_64"))]
        core::arch::asm!("w2 = xchg32_32(r1 + 0, w2)", in("r1") lock, inout("r2") 0_u64 => _);
    }
}

/// Tells the flow of a server's packet what the server has taken and sent.
///
/// # Errors
/// Where the server accepts a connection while another CPU judges a segment of an older one of the same ends: its
/// SYN comes again.
#[inline(always)]
pub fn hear_answer(
    skb: *mut __sk_buff,
    segment: &Segment,
    interface: u32,
    hook: Direction,
    settings: &Settings,
    key: &mut FlowKey,
) -> Result<(), Counter> {
    if segment.flags & (ACK | RST) == 0 {
        return Ok(());
    }
    key_of_answer(segment, interface, hook, key);
    let accepts = segment.flags & SYN != 0;
    let Some(flow) = maps::flow(key) else {
        if accepts {
            let handshake = Handshake {
                acknowledgment: segment.acknowledgment,
                // The SYN takes a sequence number of its own.
                next: segment.sequence.wrapping_add(1),
                passed: 0,
            };
            maps::keep_handshake(key, &handshake);
        }
        return Ok(());
    };
    // SAFETY: as in `of_request`.
    let flow = unsafe { &mut *flow };
    if segment.flags & (FIN | RST) != 0 {
        flow.end_by_server(segment.flags & RST != 0);
    }
    if segment.flags & ACK == 0 {
        return Ok(());
    }
    if !accepts {
        flow.settle(segment.acknowledgment);
        if flow.newcomer != 0 && segment.flags & RST == 0 && flow.is_acknowledged() {
            flow.newcomer = 0;
            maps::drop_newcomer();
        }
        flow.hear_echo(segment.echo);
        if segment.payload_len != 0 {
            hear_response(skb, segment, hook, settings, flow);
        }
        flow.answer(segment.sequence, segment.payload_len);
    } else if lock(flow) {
        flow.accept(segment.acknowledgment, maps::now());
        unlock(flow);
    } else {
        return Err(Counter::FlowBusy);
    }
    Ok(())
}

/// Tells the flow where the response ends that the server's packet begins or goes on with. Where no 403 is sent nobody
/// asks.
#[inline(always)]
fn hear_response(
    skb: *mut __sk_buff,
    segment: &Segment,
    hook: Direction,
    settings: &Settings,
    flow: &mut Flow,
) {
    let forbids = settings.on_hit == OnHit::Forbid as u32 && settings.monitor == 0;
    if !forbids {
        // Should it be asked later, with other settings: it may go on.
        flow.begin_response(segment.sequence, Said::Unknown);
        return;
    }
    if flow.may_begin_response(segment.sequence) {
        let Some(head) = maps::response_head(hook as u32) else {
            return;
        };
        // SAFETY: this CPU's and this hook's own.
        let head = unsafe { &mut *head };
        if !head.has_key() {
            // SAFETY: no arguments.
            head.set_key(u64::from(unsafe { bpf_get_prandom_u32() }) << 1);
        }
        let first = head.asks_for();
        let mut said = read_head(skb, segment, head, first);
        if said == Said::Unknown && first < least(segment.payload_len, HEAD) {
            said = read_head(skb, segment, head, HEAD);
        }
        flow.begin_response(segment.sequence, said);
    }
    if flow.responds_in_chunks() && ends_in_last_chunk(skb, segment) {
        flow.end_chunks();
    }
}

/// What the first bytes of the packet say, `most` of them.
#[inline(always)]
fn read_head(skb: *mut __sk_buff, segment: &Segment, head: &mut ResponseHead, most: u32) -> Said {
    let bytes = (&raw mut head.bytes).cast();
    let (at, len) = (segment.payload_at, least(segment.payload_len, most));
    // SAFETY: there is room for HEAD bytes and more.
    let read = unsafe { skb::load::<HEAD>(skb, at, bytes, len) };
    let said = Said::by(head, len);
    if read { said } else { Said::Unknown }
}

/// Whether the packet ends as a body in chunks does that has no trailers (RFC 9112 section 7.1).
#[inline(always)]
fn ends_in_last_chunk(skb: *mut __sk_buff, segment: &Segment) -> bool {
    let mut end = swar::zero();
    let behind = segment.payload_at.wrapping_add(segment.payload_len);
    // The TCP header stands in front of it at least.
    let at = behind.wrapping_sub(LAST_CHUNK);
    // SAFETY: a word holds as many bytes.
    let read = unsafe { skb::read::<LAST_CHUNK>(skb, at, (&raw mut end).cast()) };
    read && is_last_chunk(end, segment.payload_len)
}

/// Tells the flow of an RST that goes to the server with this sequence number, by the programs' own hand.
#[inline(always)]
pub fn hear_own_reset(key: &FlowKey, sequence: u32) {
    if let Some(flow) = maps::flow(key) {
        // SAFETY: as in `of_request`.
        unsafe { &mut *flow }.end_by_program(sequence);
    }
}

/// Tells the flow of a client's RST.
#[inline(always)]
pub fn hear_reset(segment: &Segment, interface: u32, hook: Direction, key: &mut FlowKey) {
    key_of_request(segment, interface, hook, key);
    if let Some(flow) = maps::flow(key) {
        // SAFETY: as in `of_request`.
        unsafe { &mut *flow }.end_by_client(segment.sequence);
    }
}
