//! Before the kernel makes a packet of a frame: what is dead already is dropped.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS},
        xdp_md,
    },
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::map,
    maps::PerCpuArray,
    programs::XdpContext,
};
use tokenblock_ebpf::{
    packet::{HEAD, Head, Link, Segment, parse},
    swar::{least, opaque},
    verdict::Counter,
};

use super::maps;

/// What one frame needs while it is looked at.
#[repr(C)]
struct Look {
    segment: Segment,
    head: Head,
}

#[map]
static LOOK: PerCpuArray<Look> = PerCpuArray::with_max_entries(1, 0);

/// Drops the frame where it is of a blocked flow whose client waits for no answer, or of a banned source.
#[inline(always)]
pub fn cut(ctx: &XdpContext) -> u32 {
    let (Some(look), Some(counts)) = (LOOK.get_ptr_mut(0), maps::counts()) else {
        return XDP_PASS;
    };
    // SAFETY: this CPU's own.
    let look = unsafe { &mut *look };
    let xdp = ctx.as_ptr().cast::<xdp_md>();
    // SAFETY: the program's context.
    let len = unsafe { bpf_xdp_get_buff_len(xdp) } as u32;
    look.head.len = least(len, HEAD as u32);
    // SAFETY: `head` holds HEAD bytes and more.
    let read = unsafe { load::<{ HEAD as u32 }>(xdp, look.head.as_mut_ptr(), len) };
    if !read {
        return XDP_PASS;
    }
    let parsed = parse(&look.head, len, Link::Ethernet, &mut look.segment);
    // It may hold the first bytes of a payload.
    look.head.clear();
    if parsed.is_err() {
        return XDP_PASS;
    }
    let segment = &look.segment;
    if !maps::ports().is_some_and(|ports| ports.contains(segment.destination_port)) {
        return XDP_PASS;
    }
    if maps::is_banned(segment) {
        counts.count(Counter::XdpBanned);
        return XDP_DROP;
    }
    if maps::is_dead(segment) {
        counts.count(Counter::XdpBlocked);
        return XDP_DROP;
    }
    XDP_PASS
}

/// Copies the first `n` bytes of the frame to `to`, at most `N`, which is a power of two.
///
/// # Safety
/// `xdp` is the program's context and `to` points to `N` writable bytes.
#[inline(always)]
unsafe fn load<const N: u32>(xdp: *mut xdp_md, to: *mut u8, n: u32) -> bool {
    // SAFETY: the caller's promise; the length is at most N.
    unsafe {
        if n >= N {
            return bpf_xdp_load_bytes(xdp, 0, to.cast(), N) == 0;
        }
        let n = opaque(n) & (N - 1);
        n != 0 && bpf_xdp_load_bytes(xdp, 0, to.cast(), n) == 0
    }
}
