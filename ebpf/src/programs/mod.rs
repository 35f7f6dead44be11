//! The hooks, and the order in which a packet is judged.

mod classify;
mod copies;
mod flow;
mod head;
mod intercept;
mod judge;
mod maps;
mod memo;
mod multipath;
mod report;
mod respond;
mod skb;
mod window;
mod xdp;

use aya_ebpf::{
    macros::{classifier, sk_lookup, xdp},
    programs::{SkLookupContext, TcContext, XdpContext},
};
use classify::{Direction, classify};
use tokenblock_ebpf::packet::Link;

/// Incoming packets of an interface with Ethernet headers.
#[classifier]
pub fn ingress_ethernet(ctx: TcContext) -> i32 {
    classify(&ctx, Link::Ethernet, Direction::Ingress)
}

/// Outgoing packets of an interface with Ethernet headers.
#[classifier]
pub fn egress_ethernet(ctx: TcContext) -> i32 {
    classify(&ctx, Link::Ethernet, Direction::Egress)
}

/// Incoming packets of an interface without link headers.
#[classifier]
pub fn ingress_ip(ctx: TcContext) -> i32 {
    classify(&ctx, Link::Ip, Direction::Ingress)
}

/// Outgoing packets of an interface without link headers.
#[classifier]
pub fn egress_ip(ctx: TcContext) -> i32 {
    classify(&ctx, Link::Ip, Direction::Egress)
}

/// Frames of an interface with Ethernet headers, as they come in.
#[xdp]
pub fn xdp_ethernet(ctx: XdpContext) -> u32 {
    xdp::cut(&ctx)
}

/// New connections, as the host looks for who listens.
#[sk_lookup]
pub fn intercept(ctx: SkLookupContext) -> u32 {
    intercept::hand_over(&ctx)
}

/// A reachable panic would be an endless loop, which the verifier refuses.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
