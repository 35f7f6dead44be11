//! Reporting a listed token to userspace.

use tokenblock_ebpf::{event::Event, location::LocationId, packet::Segment, verdict::MapEntry};

use super::maps::EVENTS;

/// Puts an event into the ring buffer; false where it is full.
#[inline(always)]
pub fn report(
    segment: &Segment,
    interface: u32,
    location: LocationId,
    entry: &MapEntry,
    blocked: bool,
) -> bool {
    let Some(mut slot) = EVENTS.reserve::<Event>(0) else {
        return false;
    };
    let mut event = Event::of(segment);
    event.location = location;
    event.blocked = u8::from(blocked);
    event.token = entry.token;
    event.interface = interface;
    slot.write(event);
    slot.submit(0);
    true
}

/// Reports that the sender of this segment is banned from now on; false where the ring buffer is full.
#[inline(always)]
pub fn report_ban(segment: &Segment, interface: u32) -> bool {
    let Some(mut slot) = EVENTS.reserve::<Event>(0) else {
        return false;
    };
    let mut event = Event::of(segment);
    event.banned = 1;
    event.interface = interface;
    slot.write(event);
    slot.submit(0);
    true
}
