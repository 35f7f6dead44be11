//! New connections to a service's port, handed to the proxy's socket. They keep their addresses, and the service its port.

use aya_ebpf::{
    bindings::{bpf_sk_lookup, sk_action},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, SockMap},
    programs::SkLookupContext,
};
use tokenblock_ebpf::intercept::{End, Intercept, PASSAGES, Passage};

#[map]
static INTERCEPT: Array<Intercept> = Array::with_max_entries(1, 0);
/// The proxy's listening socket; gone when the socket is.
#[map]
static PROXY: SockMap = SockMap::with_max_entries(1, 0);
/// The proxy's own connections that are being made.
#[map]
static OWN: HashMap<End, u32> =
    HashMap::with_max_entries(65_536, aya_ebpf::bindings::BPF_F_NO_PREALLOC);
#[map]
static PASSED: PerCpuArray<[u64; PASSAGES.len()]> = PerCpuArray::with_max_entries(1, 0);

const TCP: u32 = 6;
const INET: u32 = 2;

/// Decides who gets a new connection.
#[inline(always)]
pub fn hand_over(ctx: &SkLookupContext) -> u32 {
    let Some(intercept) = INTERCEPT.get(0) else {
        return sk_action::SK_PASS;
    };
    // SAFETY: the program's context, which holds all fields.
    let (protocol, port) = unsafe {
        (
            (&raw const (*ctx.lookup).protocol).read_volatile(),
            (&raw const (*ctx.lookup).local_port).read_volatile(),
        )
    };
    if protocol != TCP || port != intercept.port {
        return sk_action::SK_PASS;
    }
    // SAFETY: an entry is a mark; its value is never read.
    if unsafe { OWN.get(remote(ctx.lookup)) }.is_some() {
        count(Passage::Own);
        return sk_action::SK_PASS;
    }
    if PROXY.redirect_sk_lookup(ctx, 0, 0).is_ok() {
        count(Passage::Intercepted);
        return sk_action::SK_PASS;
    }
    if intercept.closed != 0 {
        count(Passage::Closed);
        return sk_action::SK_DROP;
    }
    count(Passage::Open);
    sk_action::SK_PASS
}

/// The client's end. Each field is read by itself and in any case: the verifier takes neither wider loads nor a choice
/// between two fields.
#[inline(always)]
fn remote(lookup: *mut bpf_sk_lookup) -> End {
    // SAFETY: the program's context, which holds all fields.
    unsafe {
        let port = u16::from_be((&raw const (*lookup).remote_port).read_volatile());
        let v4 = (&raw const (*lookup).remote_ip4).read_volatile();
        let words = (&raw const (*lookup).remote_ip6).cast::<u32>();
        let v6 = [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ];
        let is_v4 = (&raw const (*lookup).family).read_volatile() == INET;
        End {
            address: if is_v4 {
                [0, 0, u32::from_be(0xffff), v4]
            } else {
                v6
            },
            port: port.into(),
        }
    }
}

#[inline(always)]
fn count(passage: Passage) {
    if let Some(counts) = PASSED.get_ptr_mut(0)
        // SAFETY: this CPU's own; a lost increment would be no more than that.
        && let Some(count) = unsafe { (*counts).get_mut(passage as usize) }
    {
        *count += 1;
    }
}
