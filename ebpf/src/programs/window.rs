//! The part of a payload that is being scanned, copied from the packet piece by piece.

use core::ffi::c_void;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_loop};
use tokenblock_ebpf::{
    behind::{BEHIND, Behind},
    rules::Rules,
    scan::{Chunk, Scan, Source, WIDEST, unread_value},
    sums::{MOST, SumKeys, Sums},
    swar::{
        LineEnds, clear, first_of_two, forget_registers, least, not_line_end, not_plain, opaque,
        opaque_long, splat, unmarked, zero,
    },
};

use super::skb;

/// Bytes of payload held at once.
const CAPACITY: u32 = 4096;
const _: () = assert!(CAPACITY >= 2 * MOST);
/// No place in a window is beyond; all bits are set.
const FURTHEST: u64 = 2 * CAPACITY as u64 - 1;

/// Most bytes that are cleared by stores; of more the kernel's own memset is faster, a call of which takes as long as a
/// KiB of stores.
const STORED: u32 = 2048;

/// A window on the payload. Bytes behind `len` may be anything.
#[repr(C, align(8))]
pub struct Window {
    /// Offset in the packet of the first byte held.
    base: u32,
    /// Bytes held.
    len: u32,
    /// Offset in the packet behind the payload.
    payload_end: u32,
    /// Most bytes ever held since [`Window::open`].
    used: u32,
    /// Most bytes that are copied at once.
    step: u32,
    /// Bytes of the payload behind `len` that are held, and not shown.
    hidden: u32,
    bytes: [u8; (CAPACITY + WIDEST) as usize],
}

impl Window {
    /// Looks at the payload from `at` up to `end`; nothing is copied yet.
    #[inline(always)]
    pub fn open(&mut self, at: u32, end: u32) {
        self.base = at;
        self.len = 0;
        self.payload_end = end;
        self.used = 0;
        self.step = CAPACITY;
        self.hidden = 0;
    }

    /// Looks at the payload from another place on, without forgetting what is to be cleared.
    #[inline(always)]
    pub fn reopen(&mut self, at: u32, first_line_only: bool) {
        self.base = at;
        self.len = 0;
        // A line is seldom longer than a few units, and a copy of all the payload would cost more than its scan.
        self.step = if first_line_only {
            4 * WIDEST
        } else {
            CAPACITY
        };
    }

    /// Shows the first `len` bytes alone, as if the payload ended behind them.
    #[inline(always)]
    pub fn narrow(&mut self, len: u32) {
        self.hidden = self.len.wrapping_sub(len);
        self.payload_end = self.payload_end.wrapping_sub(self.hidden);
        self.len = len;
    }

    /// Shows all again that it holds.
    #[inline(always)]
    pub fn widen(&mut self) {
        self.len = self.end_of_payload();
        self.payload_end = self.payload_end.wrapping_add(self.hidden);
        self.hidden = 0;
    }

    /// Where the payload ends that it holds the rest of, whether that is shown or not.
    #[inline(always)]
    pub fn end_of_payload(&self) -> u32 {
        self.len.wrapping_add(self.hidden)
    }

    /// Looks at what is kept of what stands behind the payload, and at nothing else.
    #[inline(always)]
    pub fn show(&mut self, behind: &Behind) {
        self.base = self.payload_end;
        self.len = behind.len();
        if self.used < BEHIND {
            self.used = BEHIND;
        }
        tokenblock_window_show(self, behind);
    }

    /// Whether a unit that reads [`WIDEST`] bytes from `at` on finds all that the payload has.
    #[inline(always)]
    pub fn covers(&self, at: u32) -> bool {
        self.len.wrapping_sub(at) as i32 >= WIDEST as i32 || self.is_last()
    }

    /// Whether the payload has no bytes behind the window.
    #[inline(always)]
    pub fn is_last(&self) -> bool {
        self.base.wrapping_add(self.len) >= self.payload_end
    }

    /// Moves on, so that the first byte held is the one at `pos`; false where the packet could not be read.
    #[inline(always)]
    pub fn advance(&mut self, skb: *mut __sk_buff, pos: u32) -> bool {
        self.base = self.base.wrapping_add(pos);
        let left = self.payload_end.wrapping_sub(self.base);
        let n = least(left, self.step);
        self.len = n;
        if n > self.used {
            self.used = n;
        }
        // SAFETY: `bytes` holds CAPACITY bytes and more.
        unsafe { skb::load::<CAPACITY>(skb, self.base, self.bytes.as_mut_ptr(), n) }
    }

    /// Leaves no byte of the payload behind.
    #[inline(always)]
    pub fn close(&mut self, skb: *mut __sk_buff) {
        if self.used == 0 {
            // It is cleared already.
        } else if self.used > STORED {
            // SAFETY: as in `advance`.
            unsafe { skb::clear::<CAPACITY>(skb, self.bytes.as_mut_ptr(), self.used) };
        } else {
            tokenblock_window_clear(self);
        }
    }

    /// The sums of all that it holds, [`MOST`] bytes at most, which it holds no more then.
    #[inline(always)]
    #[expect(
        clippy::cast_ptr_alignment,
        reason = "they are aligned to words, and a store that need not be can't be volatile"
    )]
    pub fn take_sums(&mut self, keys: &SumKeys) -> Sums {
        let bytes = self.bytes.as_mut_ptr();
        // SAFETY: no group begins MOST bytes behind the first, and words are aligned.
        let group = |at: u32| unsafe { bytes.add(at as usize & (MOST - 1) as usize).cast::<u64>() };
        let take = |group: &*mut u64, i: u32| {
            // SAFETY: a word of the group.
            unsafe {
                let word = group.add(i as usize);
                let taken = word.read();
                // Volatile, or LLVM clears all of them later, by a byte-wise memset.
                word.write_volatile(zero());
                taken
            }
        };
        let sums = Sums::of(keys, self.len, group, take);
        self.used = 0;
        sums
    }
}

/// Clears what was used of a window, [`STORED`] bytes at most, as [`tokenblock_window_show`].
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_window_clear(window: *mut Window) -> u64 {
    // SAFETY: `Window::close` passes a reference; the verifier sees to the rest.
    if let Some(window) = unsafe { window.as_mut() } {
        // SAFETY: six halves of a word stand in front of them.
        unsafe { clear(&mut window.bytes, window.used) };
    }
    0
}

/// Copies what is kept to the window's start, under a name that other objects could call, since such a function the
/// verifier walks through once. Gives 0, for it wants a value.
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_window_show(window: *mut Window, behind: *const Behind) -> u64 {
    // SAFETY: `Window::show` passes references; the verifier sees to the rest.
    if let (Some(window), Some(behind)) = unsafe { (window.as_mut(), behind.as_ref()) } {
        let (words, _) = window.bytes.as_chunks_mut::<8>();
        for (to, from) in words.iter_mut().zip(behind.words()) {
            *to = opaque_long(*from).to_ne_bytes();
        }
    }
    0
}

impl Source for Window {
    type Chunk<'a> = &'a [u8; WIDEST as usize];

    #[inline(always)]
    fn chunk(&self, at: u32) -> &[u8; WIDEST as usize] {
        let at = opaque(at);
        let at = if at > CAPACITY { 0 } else { at };
        // SAFETY: CAPACITY + WIDEST bytes are there, all initialised.
        unsafe { &*self.bytes.as_ptr().add(at as usize).cast() }
    }

    #[inline(always)]
    fn end(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn line_end(&self, from: u32, end: u32) -> u32 {
        // In words, as `at` is: the verifier knows of a half no more than of the whole.
        let mut last = u64::from(end);
        if last > u64::from(CAPACITY) {
            last = u64::from(CAPACITY);
        }
        let last = opaque_long(last);
        // SAFETY: `at` is below CAPACITY, behind which there are WIDEST bytes.
        let word = |at: u64, n: usize| unsafe {
            let bytes = self.bytes.as_ptr().add(at as usize + 8 * n);
            bytes.cast::<u64>().read_unaligned()
        };
        let mut at = opaque_long(u64::from(from));
        'found: {
            'odd: {
                if at >= last {
                    break 'found;
                }
                // Most lines are short.
                for n in [0, 2, 4, 6, 8, 10] {
                    let (a, b) = (word(at, n), word(at, n + 1));
                    if not_plain(a) | not_plain(b) != 0 {
                        let (a, b) = (not_line_end(a), not_line_end(b));
                        if a & b != splat(0x80) {
                            let place = first_of_two(a ^ splat(0x80), b ^ splat(0x80));
                            at += n as u64 * 8 + u64::from(place);
                            break 'found;
                        }
                        at += n as u64 * 8 + 16;
                        break 'odd;
                    }
                }
                // Not by pointers, which the verifier does not compare.
                at = opaque_long(at + 96);
                while at < last {
                    let mut odd = 0;
                    for n in 0..8 {
                        odd |= not_plain(word(at, n));
                    }
                    if odd != 0 {
                        break;
                    }
                    at = opaque_long(at + 64);
                }
            }
            // Where one byte is odd others are. To the verifier all begin here at one place.
            at = opaque_long(at) & FURTHEST;
            forget_registers();
            let ends = LineEnds::held();
            while at < last {
                let (mut ab, mut cd) = (ends.others(word(at, 0)), ends.others(word(at, 2)));
                ab &= ends.others(word(at, 1));
                cd &= ends.others(word(at, 3));
                if ab & cd | splat(0x7f) != u64::MAX {
                    // Without a branch, which nobody could foresee.
                    let none = unmarked(!ab & splat(0x80));
                    at = opaque_long(at + u64::from(none) * 16);
                    let (a, b) = (not_line_end(word(at, 0)), not_line_end(word(at, 1)));
                    at += u64::from(first_of_two(a ^ splat(0x80), b ^ splat(0x80)));
                    break;
                }
                at = opaque_long(at + 32);
            }
        }
        if at < u64::from(end) { at as u32 } else { end }
    }

    #[inline(always)]
    fn whole_lines(&self, scan: &mut Scan, rules: &Rules) {
        tokenblock_whole_lines(scan, self, rules);
    }

    #[inline(always)]
    fn request_line(&self, scan: &mut Scan, rules: &Rules) {
        tokenblock_request_line(scan, self, rules);
    }

    #[inline(always)]
    fn find_part(&self, scan: &mut Scan, rules: &Rules) {
        tokenblock_find_part(scan, self, rules);
    }

    #[inline(always)]
    fn unread_value(&self, at: u32, rules: &Rules) -> Option<[u32; 2]> {
        let value = tokenblock_unread_value(self, rules, at);
        let end = value as u32;
        (end != 0).then_some([(value >> 32) as u32, end])
    }

    #[inline(always)]
    fn part_sums(&self, keys: &SumKeys, from: u32, [at, to]: [u32; 2]) -> Option<Sums> {
        let mut sums = Sums::NONE;
        let part = u64::from(to) << 32 | u64::from(at);
        (tokenblock_part_sums(&raw mut sums, self, keys, from, part) != 0).then_some(sums)
    }

    #[inline(always)]
    fn sums(&self, keys: &SumKeys, from: u32, len: u32) -> Sums {
        let mut sums = Sums::NONE;
        tokenblock_sums(&raw mut sums, self, keys, from, len);
        sums
    }
}

/// Most whole lines that a window can hold, and more.
const LINES: u32 = CAPACITY;

/// What whole lines share.
struct Lines<'a> {
    scan: &'a mut Scan,
    window: &'a Window,
    rules: &'a Rules,
}

/// What a function gets that the verifier walks through once: to it any pointer may be null.
///
/// # Safety
/// The pointers are references, or null.
#[inline(always)]
unsafe fn passed<'a>(
    scan: *mut Scan,
    window: *const Window,
    rules: *const Rules,
) -> Option<(&'a mut Scan, &'a Window, &'a Rules)> {
    // SAFETY: as above; the verifier sees to the rest.
    unsafe { Some((scan.as_mut()?, window.as_ref()?, rules.as_ref()?)) }
}

/// [`Source::whole_lines`], under a name that other objects could call, since such a function the verifier walks through
/// once. Gives 0, for the verifier wants a value.
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_whole_lines(
    scan: *mut Scan,
    window: *const Window,
    rules: *const Rules,
) -> u64 {
    // SAFETY: the caller passes references.
    let Some((scan, window, rules)) = (unsafe { passed(scan, window, rules) }) else {
        return 0;
    };
    let mut lines = Lines {
        scan,
        window,
        rules,
    };
    let context: *mut Lines<'_> = &raw mut lines;
    // SAFETY: the callback gets the context back, and it outlives the call.
    unsafe {
        bpf_loop(LINES, whole_line as *mut c_void, context.cast(), 0);
        if (*context).scan.is_body_line() {
            bpf_loop(LINES, body_line as *mut c_void, context.cast(), 0);
        }
    }
    0
}

/// One line under `bpf_loop`.
extern "C" fn whole_line(_index: u64, context: *mut Lines<'_>) -> i64 {
    // SAFETY: `tokenblock_whole_lines` passes its own.
    let lines = unsafe { &mut *context };
    i64::from(!lines.scan.whole_line(lines.rules, lines.window))
}

/// One line of a body under `bpf_loop`.
extern "C" fn body_line(_index: u64, context: *mut Lines<'_>) -> i64 {
    // SAFETY: as in `whole_line`.
    let lines = unsafe { &mut *context };
    i64::from(!lines.scan.body_line(lines.rules, lines.window))
}

/// [`Source::sums`], as [`tokenblock_whole_lines`].
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_sums(
    sums: *mut Sums,
    window: *const Window,
    keys: *const SumKeys,
    from: u32,
    len: u32,
) -> u64 {
    // SAFETY: the caller passes references; the verifier sees to the rest.
    let passed = unsafe { (sums.as_mut(), window.as_ref(), keys.as_ref()) };
    if let (Some(sums), Some(window), Some(keys)) = passed {
        let from = opaque(from);
        let from = if from > MOST { 0 } else { from };
        // SAFETY: as in `chunk`: no group begins more than MOST behind it.
        let group = |at: u32| unsafe { &*window.bytes.as_ptr().add((from + at) as usize).cast() };
        let word = |group: &&[u8; WIDEST as usize], i| group.word(i);
        *sums = Sums::of(keys, len, group, word);
    }
    0
}

/// [`Source::part_sums`], as [`tokenblock_sums`]; false where there are none.
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_part_sums(
    sums: *mut Sums,
    window: *const Window,
    keys: *const SumKeys,
    from: u32,
    part: u64,
) -> u64 {
    // SAFETY: the caller passes references; the verifier sees to the rest.
    let passed = unsafe { (sums.as_mut(), window.as_ref(), keys.as_ref()) };
    if let (Some(sums), Some(window), Some(keys)) = passed {
        let word = |n: u32| window.chunk(from.wrapping_add(n * 8)).word(0);
        if let Some(part) = Sums::of_part(keys, [part as u32, (part >> 32) as u32], word) {
            *sums = part;
            return 1;
        }
    }
    0
}

/// [`Source::unread_value`], as [`tokenblock_whole_lines`]: where the value ends, 0 where there is none, and above that
/// where it begins.
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_unread_value(window: *const Window, rules: *const Rules, at: u32) -> u64 {
    // SAFETY: the caller passes references; the verifier sees to the rest.
    let (Some(window), Some(rules)) = (unsafe { (window.as_ref(), rules.as_ref()) }) else {
        return 0;
    };
    unread_value(window, at, rules).map_or(0, |[from, to]| u64::from(from) << 32 | u64::from(to))
}

/// [`Source::request_line`], as [`tokenblock_whole_lines`].
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_request_line(
    scan: *mut Scan,
    window: *const Window,
    rules: *const Rules,
) -> u64 {
    // SAFETY: the caller passes references.
    let Some((scan, window, rules)) = (unsafe { passed(scan, window, rules) }) else {
        return 0;
    };
    scan.request_line(rules, window);
    0
}

/// [`Source::find_part`], as [`tokenblock_whole_lines`].
#[inline(never)]
// SAFETY: nothing else is called so.
#[unsafe(no_mangle)]
extern "C" fn tokenblock_find_part(
    scan: *mut Scan,
    window: *const Window,
    rules: *const Rules,
) -> u64 {
    // SAFETY: the caller passes references.
    let Some((scan, window, rules)) = (unsafe { passed(scan, window, rules) }) else {
        return 0;
    };
    scan.find_part(rules, window);
    0
}
