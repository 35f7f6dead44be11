//! The maps, and safe ways to their values.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_NOEXIST},
    btf_maps::{Array as BtfArray, ArrayOfMaps},
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use tokenblock_ebpf::{
    ban::Offender,
    blocked::{Again, Blocked, flow_of},
    digest::TokenDigest,
    filter::{Filter, Fingerprint, PAGE, PAGES},
    flow::{Copied, Flow, FlowKey, Gap, GapKey, Pieces, Place, PlaceKeys, Start},
    packet::{Address, Head, Segment},
    reply::{Reply, SYN},
    response::Head as ResponseHead,
    rules::Rules,
    scan::Scan,
    sums::SumKeys,
    swar::opaque,
    table::{Bucket, Header, places, words},
    verdict::{COUNTERS, Counter, MapEntry, PortSet, Settings},
};

use super::{judge::Outcome, window::Window};

/// What one packet needs while it is judged. Lies in a per-CPU map: on the stack the verifier would track
/// every byte of it through every unit, and it is larger than the stack.
#[repr(C)]
pub struct Work {
    pub scan: Scan,
    pub segment: Segment,
    pub head: Head,
    /// What is done with a segment of a blocked flow, and what is remembered of it.
    pub again: Again,
    pub blocked: Blocked,
    /// The sender, as [`EXEMPT`] knows it.
    exempt: Key<[u32; 4]>,
    /// How the segment stands in its flow, and the sequence number of its first byte.
    pub place: Place,
    pub start: u32,
    /// Nanoseconds since boot, and the tick of which they are.
    pub now: u64,
    ticks: u64,
    /// The generation of the list and the rules, before anything of them was read.
    pub generation: u64,
    /// Whether the flow is on record; whether its server owes the client nothing.
    pub tracked: u32,
    pub may_forbid: u32,
    /// Whether its client has heard the server, and so is where it says.
    pub heard: u32,
    /// How the scans of the segment ended. On the stack of who calls the units each value would be one more walk through
    /// them: the verifier follows what a callback says on past its last round.
    pub outcome: Outcome,
    /// Which scan of the segment is under way, and where it began.
    pub step: u32,
    pub begun: Start,
    pub gap_key: GapKey,
    /// What of the segment is to be noted or compared still.
    pub pieces: Pieces,
    /// Whether `gap` is what is noted under `gap_key`; an `Option` would have places that nothing sets
    /// ("R5 `!read_ok`").
    pub has_gap: u64,
    pub gap: Gap,
    /// What is left of it behind a segment in its middle.
    pub rest: Gap,
    pub window: Window,
}

/// What a server said with its SYN, and what passed since of which no flow is kept.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Handshake {
    /// All before this sequence number of the client's is taken, or has passed.
    pub acknowledgment: u32,
    /// The server's next sequence number.
    pub next: u32,
    /// Whether any has passed.
    pub passed: u32,
}

impl Handshake {
    /// Most bytes that a server has sent before its client sends the first.
    const GREETING: u32 = 1 << 20;

    /// Whether who sends this acknowledgment number has heard the server's SYN, or guessed one of four thousand.
    #[inline(always)]
    pub fn is_heard(self, acknowledgment: u32) -> bool {
        acknowledgment.wrapping_sub(self.next) <= Self::GREETING
    }
}

impl Work {
    /// The sequence numbers of the segment's first byte and of that behind its last.
    #[inline(always)]
    pub fn bounds(&self) -> [u32; 2] {
        let segment = &self.segment;
        // The SYN takes a sequence number of its own (RFC 9293 section 3.4).
        let syn = u32::from(segment.flags & SYN != 0);
        let start = segment.sequence.wrapping_add(syn);
        [start, start.wrapping_add(segment.payload_len)]
    }

    /// [`now`], read once a tick: to ask for the tick is a load, to ask for the time a call of 16 ns.
    #[inline(always)]
    pub fn look_at_clock(&mut self) -> u64 {
        // SAFETY: no arguments.
        let ticks = unsafe { bpf_jiffies64() };
        if self.ticks != ticks {
            self.ticks = ticks;
            self.now = now();
        }
        self.now
    }
}

/// The replies to both ends.
#[repr(C)]
pub struct Replies {
    pub client: Reply,
    pub server: Reply,
}

/// A page of the filter.
#[repr(transparent)]
pub struct Page([u64; PAGE as usize]);

/// Written through memory that userspace shares, and of any size.
const TABLE_FLAGS: usize = (BPF_F_MMAPABLE | BPF_F_INNER_MAP) as usize;
/// Written through memory that userspace shares.
const PAGE_FLAGS: usize = BPF_F_MMAPABLE as usize;

/// One value, that another takes the place of while the programs run.
#[btf_map]
static RULES: ArrayOfMaps<BtfArray<Rules, 1, 0>, 1> = ArrayOfMaps::new();
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
/// By index, what makes the number of an interface that of its way; 0 where it is one of its own.
#[map]
static WAYS: Array<u32> = Array::with_max_entries(FlowKey::INTERFACES, 0);
#[map]
static PORTS: Array<PortSet> = Array::with_max_entries(1, 0);
/// One table: see [`tokenblock_ebpf::table`]. A larger one takes its place; the size given here counts for none.
#[btf_map]
static TABLE: ArrayOfMaps<BtfArray<Bucket, 1, TABLE_FLAGS>, 1> = ArrayOfMaps::new();
/// Entries for which the table has no place.
#[map]
static OVERFLOW: HashMap<[u64; 2], u64> =
    HashMap::with_max_entries(65_536, aya_ebpf::bindings::BPF_F_NO_PREALLOC);
/// Bits of the fingerprints of all entries, by pages.
#[btf_map]
static FILTER: ArrayOfMaps<BtfArray<Page, 1, PAGE_FLAGS>, { PAGES as usize }> = ArrayOfMaps::new();
/// Counts how often the list or the rules have changed; written through memory that userspace shares.
#[map]
static GENERATION: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Keys of the sums by which header blocks are known again; made anew at each start.
#[map]
static SUM_KEYS: Array<SumKeys> = Array::with_max_entries(1, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
#[map]
static COUNTS: PerCpuArray<[u64; COUNTERS.len()]> = PerCpuArray::with_max_entries(1, 0);
/// One slot a hook: an outgoing packet may be judged while an incoming one is.
#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(2, 0);
/// Flows of which a request was blocked; those that were quiet the longest are forgotten where it is full.
#[map]
static BLOCKED: LruHashMap<FlowKey, Blocked> = LruHashMap::with_max_entries(65_536, 0);
/// 1 once a flow was blocked: until then nothing need be looked up in [`BLOCKED`].
#[map]
static ANY_BLOCKED: Array<u32> = Array::with_max_entries(1, 0);
/// Sources of blocked requests; filled only where sources are banned.
#[map]
static OFFENDERS: LruHashMap<Address, Offender> = LruHashMap::with_max_entries(65_536, 0);
/// Networks that are never banned, and 0 for those within them that are; sized by the loader.
#[map]
static EXEMPT: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(1, 0);
/// Flows with requests; sized by the loader. What is idle is swept by userspace, and nothing is evicted: a flow
/// that stands inside a candidate must not be forgotten.
#[map]
static FLOWS: HashMap<u64, Flow> =
    HashMap::with_max_entries(65_536, aya_ebpf::bindings::BPF_F_NO_PREALLOC);
/// One slot a hook, as [`WORK`]: a flow of which nothing is known but its key; zeros else.
#[map]
static NEW_FLOW: PerCpuArray<Flow> = PerCpuArray::with_max_entries(2, 0);
/// What places in [`FLOWS`] depend on; the loader draws them.
#[unsafe(no_mangle)]
static PLACE_KEYS: PlaceKeys = [[0; 2]; size_of::<PlaceKeys>() / 16];
/// Gaps inside bodies; one that is forgotten costs its flow the connection, no more.
#[map]
static GAPS: LruHashMap<GapKey, Gap> = LruHashMap::with_max_entries(65_536, 0);
/// Open states of flows that lose segments, by the places at which they stand; one that is forgotten may cost its flow the
/// connection.
#[map]
static STATES: LruHashMap<GapKey, Scan> = LruHashMap::with_max_entries(16_384, 0);
/// What was passed on its way out, piece by piece; of what is forgotten a copy is a duplicate, until the receiver is known to want
/// it. Sized by the loader.
#[map]
static COPIES: LruHashMap<GapKey, Copied> = LruHashMap::with_max_entries(65_536, 0);
/// What servers said with their SYN, until there is a flow of what the client sends.
#[map]
static HANDSHAKES: LruHashMap<FlowKey, Handshake> = LruHashMap::with_max_entries(65_536, 0);
/// How many flows there are of which nobody knows but their sender; set right by userspace as it sweeps.
#[map]
static NEWCOMERS: Array<i32> = Array::with_max_entries(1, 0);
/// One slot a hook, as [`WORK`].
#[map]
static REPLIES: PerCpuArray<Replies> = PerCpuArray::with_max_entries(2, 0);

/// One slot a hook, as [`WORK`]: the head of a response while it is read.
#[map]
static RESPONSES: PerCpuArray<ResponseHead> = PerCpuArray::with_max_entries(2, 0);

/// Where the head of a response is read at this hook.
#[inline(always)]
pub fn response_head(hook: u32) -> Option<*mut ResponseHead> {
    RESPONSES.get_ptr_mut(hook)
}

/// The rules.
#[inline(always)]
pub fn rules() -> Option<&'static Rules> {
    RULES.get_value(0, &0)
}

/// The settings.
#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// The generation of the list and the rules: what was found clean under one may be found otherwise under the next.
#[inline(always)]
pub fn generation() -> u64 {
    // SAFETY: another CPU may write it at any moment; it is one word.
    GENERATION
        .get_ptr(0)
        .map_or(0, |generation| unsafe { generation.read_volatile() })
}

/// The keys of the sums by which header blocks are known again.
#[inline(always)]
pub fn sum_keys() -> Option<&'static SumKeys> {
    SUM_KEYS.get(0)
}

/// The way of this interface, as a flow's key has it.
#[inline(always)]
pub fn way(interface: u32) -> u32 {
    WAYS.get(interface)
        .map_or(interface, |other| interface ^ *other)
}

/// The protected ports.
#[inline(always)]
pub fn ports() -> Option<&'static PortSet> {
    PORTS.get(0)
}

/// What the denylist holds under this digest.
#[inline(always)]
pub fn listed(digest: &TokenDigest) -> Option<MapEntry> {
    let [low, high] = words(digest);
    MapEntry::of_word(tokenblock_listed(low, high))
}

/// The entry of the digest with these words; 0 where there is none.
///
/// Under a name that other objects could call: such a function the verifier walks through once, whoever calls it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tokenblock_listed(low: u64, high: u64) -> u64 {
    // An entry that is removed meanwhile may be replaced by another; both readings were true an instant ago.
    look_up([low, high]).unwrap_or(0)
}

#[inline(always)]
fn look_up(digest: [u64; 2]) -> Option<u64> {
    let table = TABLE.get(0)?;
    let header = Header::of(table.get(0)?);
    let [first, second] = places(digest, header.buckets);
    let mut found = table.get(first)?.find(digest);
    if found == 0 {
        found = table.get(second)?.find(digest);
    }
    if found == 0 && header.overflows {
        // SAFETY: as above.
        found = unsafe { OVERFLOW.get(digest) }.copied()?;
    }
    Some(found)
}

/// The filter in front of the denylist; `mask + 1` is its number of blocks, 0 where there is none.
pub struct MapFilter {
    pub mask: u32,
}

impl Filter for MapFilter {
    #[inline(always)]
    fn is_on(&self) -> bool {
        self.mask != 0
    }

    #[inline(always)]
    fn may_hold(&self, fingerprint: Fingerprint) -> bool {
        let (block, bits) = fingerprint.place(self.mask);
        let Some(page) = FILTER.get_value(block / PAGE, &0) else {
            return true;
        };
        // Opaque: the verifier must see the bound that LLVM knows.
        let at = opaque(block) & (PAGE - 1);
        // SAFETY: a page holds PAGE blocks.
        let block = unsafe { page.0.as_ptr().add(at as usize).read() };
        block & bits == bits
    }
}

/// This CPU's counters.
#[inline(always)]
pub fn counts() -> Option<&'static mut Counts> {
    // SAFETY: per CPU, and a program is not preempted by another of its hook on the same CPU; a lost
    // increment between hooks would be no more than that.
    COUNTS
        .get_ptr_mut(0)
        .map(|counts| unsafe { &mut *counts.cast::<Counts>() })
}

/// This CPU's work space for a hook.
#[inline(always)]
pub fn work(slot: u32) -> Option<*mut Work> {
    WORK.get_ptr_mut(slot)
}

/// What is known of a flow.
#[inline(always)]
pub fn flow(key: &FlowKey) -> Option<*mut Flow> {
    let flow = FLOWS.get_ptr_mut(place(key))?;
    // SAFETY: an entry lives while its program runs; its key is not written any more.
    let is_its = unsafe { &(*flow).key }.is(key);
    is_its.then_some(flow)
}

/// The flow that stands in on this CPU.
#[inline(always)]
pub fn stand_in(cpu: u32, hook: u32) -> Option<*mut Flow> {
    FLOWS.get_ptr_mut(FlowKey::place_of_stand_in(cpu, hook))
}

/// Puts a flow on record, of which nothing is known. False where there is no room for it, or another CPU was faster.
#[inline(always)]
pub fn add_flow(key: &FlowKey, hook: u32) -> bool {
    let Some(new) = NEW_FLOW.get_ptr_mut(hook) else {
        return false;
    };
    // SAFETY: this CPU's and this hook's own.
    let new = unsafe {
        (*new).key = *key;
        &*new
    };
    FLOWS
        .insert(place(key), new, u64::from(BPF_NOEXIST))
        .is_ok()
}

#[inline(always)]
fn place(key: &FlowKey) -> u64 {
    let keys: *const [u64; 2] = (&raw const PLACE_KEYS).cast();
    key.place(|i| {
        // SAFETY: one of the keys, which the loader has written: the compiler knows zeros.
        unsafe {
            let key = keys.add(i).cast::<u64>();
            [key.read_volatile(), key.add(1).read_volatile()]
        }
    })
}

/// What the server said with its SYN.
#[inline(always)]
pub fn handshake(key: &FlowKey) -> Option<Handshake> {
    // SAFETY: an entry that is reused meanwhile is another connection's of the same hash at worst, and what is
    // read of it is checked against the segment's place.
    unsafe { HANDSHAKES.get(key) }.copied()
}

/// Forgets it: it is true of the connection's first segment, and no more once the flow was swept.
#[inline(always)]
pub fn drop_handshake(key: &FlowKey) {
    let _gone = HANDSHAKES.remove(key);
}

/// Whether a segment of which no flow is kept, `start..end`, is the next one of its connection, of which each byte passes once:
/// of two CPUs that ask, one is told so.
#[inline(always)]
pub fn take_turn(key: &FlowKey, start: u32, end: u32) -> bool {
    HANDSHAKES.get_ptr_mut(key).is_some_and(|handshake| {
        let at: *mut Handshake = handshake;
        let held: u64;
        // SAFETY: as in `handshake`; the words are aligned, and live as long as this program runs.
        unsafe {
            (*at).passed = 1;
            core::arch::asm!(
                "w0 = cmpxchg32_32(r1 + 0, w0, w2)",
                in("r1") at,
                in("r2") u64::from(end),
                inout("r0") u64::from(start) => held,
            );
        }
        held as u32 == start
    })
}

/// Keeps what the server said with its SYN.
#[inline(always)]
pub fn keep_handshake(key: &FlowKey, handshake: &Handshake) {
    let _full = HANDSHAKES.insert(key, handshake, 0);
}

/// Whether there is room for another newcomer among the flows.
#[inline(always)]
pub fn takes_newcomers() -> bool {
    let (Some(newcomers), Some(settings)) = (NEWCOMERS.get_ptr(0), settings()) else {
        return false;
    };
    // SAFETY: another CPU may write it at any moment; it is one word.
    let newcomers = unsafe { newcomers.read_volatile() };
    // Less than none for an instant, where it was set right meanwhile.
    newcomers < 0 || newcomers.cast_unsigned() < settings.newcomers
}

/// There is one newcomer more.
#[inline(always)]
pub fn add_newcomer() {
    tokenblock_count_newcomers(1);
}

/// A newcomer was acknowledged by its server.
#[inline(always)]
pub fn drop_newcomer() {
    tokenblock_count_newcomers(-1);
}

/// Counts newcomers, under a name that other objects could call, since such a function the verifier walks through once.
/// Gives 0, for it wants a value.
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_count_newcomers(more: i32) -> u64 {
    if let Some(newcomers) = NEWCOMERS.get_ptr_mut(0) {
        // `core` has no such function for this target.
        // SAFETY: the word is aligned, and lives as long as the map.
        unsafe {
            core::arch::asm!(
                "lock *(u32 *)(r1 + 0) += w2",
                in("r1") newcomers,
                in("r2") i64::from(more),
            );
        }
    }
    0
}

/// What is noted of a gap.
#[inline(always)]
pub fn gap(key: &GapKey) -> Option<&'static Gap> {
    // SAFETY: as in `take_handshake`.
    unsafe { GAPS.get(key) }
}

/// Notes a gap. False where there is no room for it.
#[inline(always)]
pub fn note_gap(key: &GapKey, gap: &Gap) -> bool {
    GAPS.insert(key, gap, 0).is_ok()
}

/// The state that was kept under this place.
#[inline(always)]
pub fn state(key: &GapKey) -> Option<&'static Scan> {
    // SAFETY: as in `take_handshake`.
    unsafe { STATES.get(key) }
}

/// Keeps a state.
#[inline(always)]
pub fn keep_state(key: &GapKey, state: &Scan) {
    let _full = STATES.insert(key, state, 0);
}

/// What is noted of a piece of what was passed.
#[inline(always)]
pub fn copied(key: &GapKey) -> Option<&'static Copied> {
    // SAFETY: an entry that is reused meanwhile is that of another piece, whose bytes are not these.
    unsafe { COPIES.get(key) }
}

/// Notes a piece of what was passed. What says something else there is taken away where there is no room.
#[inline(always)]
pub fn note_copied(key: &GapKey, copied: &Copied) {
    if COPIES.insert(key, copied, 0).is_err() {
        let _gone = COPIES.remove(key);
    }
}

/// This CPU's replies for a hook.
#[inline(always)]
pub fn replies(slot: u32) -> Option<*mut Replies> {
    REPLIES.get_ptr_mut(slot)
}

/// Nanoseconds since boot, as of the last tick: a few milliseconds decide nothing here, and it needs no clock read.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Remembers that a request of this flow was blocked.
#[inline(always)]
pub fn block(segment: &Segment, blocked: &Blocked) {
    if let Some(any) = ANY_BLOCKED.get_ptr_mut(0) {
        // SAFETY: one word, set by whoever comes, and never cleared.
        unsafe { any.write_volatile(1) };
    }
    // Full is not possible, and out of memory leaves a flow whose segments are judged again.
    let _forgotten = BLOCKED.insert(flow_of(segment), blocked, 0);
}

/// What is done with a segment of a flow of which a request was blocked; `None` for all others.
#[inline(always)]
pub fn blocked(segment: &Segment) -> Option<(Again, &'static Blocked)> {
    if ANY_BLOCKED.get(0).is_none_or(|any| *any == 0) {
        return None;
    }
    let key = flow_of(segment);
    let flow = BLOCKED.get_ptr_mut(key)?;
    // SAFETY: an entry that is evicted meanwhile may be reused for another flow: one segment of it is
    // then dropped, and its sender sends it again.
    let flow = unsafe { &mut *flow };
    match flow.again(segment, now()) {
        Again::Forget => {
            // Gone already is as good.
            let _gone = BLOCKED.remove(key);
            None
        }
        again => Some((again, flow)),
    }
}

/// Whether nobody waits for an answer to this segment of a blocked flow.
#[inline(always)]
pub fn is_dead(segment: &Segment) -> bool {
    BLOCKED
        .get_ptr(flow_of(segment))
        // SAFETY: as in `blocked`.
        .is_some_and(|flow| unsafe { &*flow }.is_dead(segment, now()))
}

/// Whether the sender of this segment is banned.
#[inline(always)]
pub fn is_banned(segment: &Segment) -> bool {
    settings().is_some_and(|settings| settings.ban.is_on())
        && OFFENDERS
            .get_ptr(segment.source)
            // SAFETY: an entry that is reused meanwhile gives the answer of an instant later.
            .is_some_and(|source| unsafe { &*source }.is_banned(now()))
}

/// Counts a blocked request against its sender; true where it is banned from now on.
#[inline(always)]
pub fn offend(work: &mut Work, settings: &Settings) -> bool {
    if !settings.ban.is_on() {
        return false;
    }
    work.exempt = Key::new(128, work.segment.source.words());
    if EXEMPT.get(&work.exempt).is_some_and(|exempt| *exempt != 0) {
        return false;
    }
    let source = work.segment.source;
    if OFFENDERS.get_ptr(source).is_none() {
        // Full is not possible; out of memory, this hit does not count.
        let _inserted = OFFENDERS.insert(source, Offender::default(), 0);
    }
    OFFENDERS
        .get_ptr_mut(source)
        // SAFETY: two CPUs may count at once, and lose one hit.
        .is_some_and(|source| unsafe { &mut *source }.hit(&settings.ban, now()))
}

/// One CPU's counters.
#[repr(transparent)]
pub struct Counts([u64; COUNTERS.len()]);

impl Counts {
    /// Counts one.
    #[inline(always)]
    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    #[inline(always)]
    pub fn add(&mut self, counter: Counter, n: u64) {
        if let Some(count) = self.0.get_mut(counter as usize) {
            *count += n;
        }
    }
}
