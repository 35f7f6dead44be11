use super::*;

/// `GET http://h/` with `x-name: value`, which later heads may be about.
const FIRST: &[u8] = b"\x82\x86\x84\x41\x01h\x40\x06x-name\x05value";
/// The same without a name.
const GET: &[u8] = b"\x82\x86\x84\x41\x01h";
/// All of it again.
const AGAIN: &[u8] = b"\x82\x86\x84\xbf\xbe";
/// The same without a table.
const WRITTEN: &[u8] =
    b"\x00\x07:method\x03GET\x00\x07:scheme\x04http\x00\x05:path\x01/\x00\x0a:authority\x01h\x00\x06x-name\x05value";
const PREFACE_TEXT: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    Head {
        len: payload.len(),
        kind,
        flags,
        stream,
    }
    .write(&mut frame);
    frame.extend_from_slice(payload);
    frame
}

fn head(stream: u32, block: &[u8]) -> Vec<u8> {
    framed(
        frame::HEADERS,
        frame::END_HEADERS | frame::END_STREAM,
        stream,
        block,
    )
}

fn update(stream: u32, more: u32) -> Vec<u8> {
    framed(frame::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// What the library gets of these bytes, cut into so many at a time; requests on streams that `refuse` names never get
/// there.
fn taken(intake: &mut Intake, bytes: &[u8], cut: usize, refuse: impl Fn(u32) -> bool) -> Vec<u8> {
    let mut taken = Vec::new();
    for bytes in bytes.chunks(cut) {
        intake.input().filling().extend_from_slice(bytes);
        loop {
            let mut room = [0; 7];
            let mut library = ReadBuf::new(&mut room);
            intake.give(&mut library);
            let is_full = library.remaining() == 0;
            taken.extend_from_slice(library.filled());
            if is_full {
                continue;
            }
            match intake.step() {
                Step::Next => {}
                Step::Judge(head) if refuse(head.stream) => intake.refused(head.stream, 1),
                Step::Judge(head) => {
                    intake.hand_on(head, true);
                }
                Step::Read => break,
            }
        }
    }
    taken
}

fn new() -> Intake {
    Intake::new(1 << 14, &Buffers::default())
}

#[test]
fn what_is_no_head_passes_as_it_came() {
    let stream = [
        PREFACE_TEXT,
        &framed(frame::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        &head(1, WRITTEN),
        &framed(frame::HEADERS, frame::END_HEADERS, 3, WRITTEN),
        &framed(frame::DATA, frame::END_STREAM, 3, &[b'x'; 5000]),
        &update(1, 5),
        &framed(0x77, 0, 3, b"what nobody knows"),
        // What the library takes not at all.
        &framed(frame::PING, 0, 0, &vec![0; 20_000]),
        b"and what follows",
    ]
    .concat();
    for cut in [1, 9, 100, usize::MAX] {
        let mut intake = new();
        assert_eq!(taken(&mut intake, &stream, cut, |_| false), stream);
        assert_eq!(intake.terms.window, 1 << 16);
    }
}

#[test]
fn refused_requests_and_what_belongs_to_them_never_get_there() {
    for cut in [1, 9, 100, usize::MAX] {
        let mut intake = new();
        let first = [PREFACE_TEXT, &head(1, FIRST)].concat();
        assert_eq!(taken(&mut intake, &first, cut, |_| true), PREFACE_TEXT);
        let later = [
            head(3, AGAIN),
            update(3, 5),
            framed(frame::RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            head(5, AGAIN),
            head(7, AGAIN),
            update(5, 5),
        ]
        .concat();
        let expected = [head(5, WRITTEN), update(5, 5)].concat();
        assert_eq!(taken(&mut intake, &later, cut, |id| id != 5), expected);
        assert!(!intake.was_judged(1) && intake.was_judged(5) && !intake.was_judged(7));
        // One with a body is not judged here, in however many frames its head is.
        let padded = [&[3, 0, 0, 0, 0, 9][..], AGAIN, &[0; 3]].concat();
        let flags = frame::PADDED | frame::HAS_PRIORITY;
        let later = [
            framed(frame::HEADERS, flags, 9, &padded),
            framed(frame::CONTINUATION, frame::END_HEADERS, 9, &[]),
            framed(frame::DATA, frame::END_STREAM, 9, b"body"),
        ]
        .concat();
        let expected = [
            framed(frame::HEADERS, frame::END_HEADERS, 9, WRITTEN),
            framed(frame::DATA, frame::END_STREAM, 9, b"body"),
        ]
        .concat();
        assert_eq!(taken(&mut intake, &later, cut, |_| true), expected);
        // Nothing may follow on a stream that is over.
        let more = [head(11, AGAIN), head(11, AGAIN)].concat();
        let error = head(11, &[NONSENSE]);
        assert_eq!(taken(&mut intake, &more, cut, |_| true), error);
    }
}

#[test]
fn what_is_malformed_is_nonsense_for_the_library() {
    for block in [&b"\xff"[..], b"\x80", b"\xc4"] {
        let mut intake = new();
        let first = [PREFACE_TEXT, &head(1, FIRST)].concat();
        taken(&mut intake, &first, usize::MAX, |_| true);
        let made = taken(&mut intake, &head(3, block), usize::MAX, |_| true);
        assert_eq!(made, head(3, &[NONSENSE]));
    }
}

/// What is too large stays so, without its bytes.
#[test]
fn a_large_head_is_large_for_the_library() {
    for most in [1 << 10, 1 << 14, 1 << 18] {
        for (times, least) in [(1, most), (4, 4 * most)] {
            let mut intake = Intake::new(most, &Buffers::default());
            // Its name and value have 3,033 bytes, or as good as.
            let long = [GET, b"\x40\x01a\x7f\xb9\x16", &[b'v'; 3000]].concat();
            let block = [&long, &[0xbe].repeat(times * most / 3033 + 1)[..]].concat();
            let stream = [PREFACE_TEXT, &head(1, &block)].concat();
            let made = taken(&mut intake, &stream, usize::MAX, |_| true);
            let made = &made[PREFACE_TEXT.len()..];
            let (mut library, mut fields) = (Decoder::new(), Fields::default());
            library
                .read(&made[frame::HEAD..], &mut fields, 1 << 30)
                .unwrap();
            // All of it is in one frame, since the library doesn't add up what lies in several.
            assert_eq!(block_len(made), made.len() - frame::HEAD);
            assert!(fields.size() > least, "{} of {least}", fields.size());
            let pseudo = |field: hpack::Field<'_>| field.name.starts_with(b":");
            assert!(fields.iter().take(4).all(pseudo));
        }
    }
}

fn block_len(frames: &[u8]) -> usize {
    Head::parse(*frames.first_chunk().unwrap()).len
}

#[test]
fn the_clients_window_is_shared() {
    let mut intake = new();
    assert!(intake.may_answer(0) && !intake.may_answer(1));
    let stream = [PREFACE_TEXT, &update(0, 1000)].concat();
    assert_eq!(taken(&mut intake, &stream, 1, |_| true), PREFACE_TEXT);
    assert!(intake.may_answer(1000) && !intake.may_answer(1001));
    intake.on_sent(40_000);
    assert!(intake.is_due() && !intake.is_due());
    assert_eq!(taken(&mut intake, &[0], 1, |_| true), update(0, 1000));
    assert!(!intake.may_answer(1));
    // More than there can be.
    let mut intake = new();
    let stream = [PREFACE_TEXT, &update(0, u32::MAX >> 1)].concat();
    let too_many = update(0, u32::MAX >> 1).repeat(2);
    let expected = [PREFACE_TEXT, &too_many].concat();
    assert_eq!(taken(&mut intake, &stream, 1, |_| true), expected);
    // A table that is smaller than the library's is for the library to speak of.
    let settings = framed(frame::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
    taken(&mut intake, &settings, 1, |_| true);
    assert!(!intake.may_answer(0));
}

proptest::proptest! {
    /// Frames of any kind, most of them odd: no end is lost, and it doesn't matter how they are cut.
    #[test]
    fn whatever_comes_is_read_however_it_is_cut(
        frames in proptest::collection::vec(
            (0..11_u8, proptest::bits::u8::masked(0x2d), 0..9_u32, 0..BLOCKS.len()),
            0..30,
        ),
        cut in 1..100_usize,
    ) {
        let frames = frames.into_iter().map(|(kind, flags, stream, block)| {
            framed(kind, flags, stream, BLOCKS[block])
        });
        let stream = [PREFACE_TEXT.to_vec(), frames.flatten().collect()].concat();
        let refuse = |stream: u32| stream % 4 == 3;
        let (mut whole, mut parts) = (new(), new());
        let at_once = taken(&mut whole, &stream, usize::MAX, refuse);
        let in_parts = taken(&mut parts, &stream, cut, refuse);
        proptest::prop_assert_eq!(whole.is_broken, parts.is_broken);
        if !whole.is_broken {
            proptest::prop_assert_eq!(at_once, in_parts);
            proptest::prop_assert_eq!(whole.credit(), parts.credit());
        }
    }
}

/// What frames are made of: blocks, parts of some, and what other frames have.
const BLOCKS: [&[u8]; 9] = [
    FIRST,
    AGAIN,
    WRITTEN,
    b"",
    b"\x41\x8c\xf1\xe3\xc2\xe5",
    b"\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    &[0, 0, 1, 0],
    &[2, 0, 0, 0, 0, 9, 0x82, 0x84, 0, 0],
    &[0, 4, 0, 0, 0, 9],
];
