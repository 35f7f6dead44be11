use super::*;

const ENOUGH: usize = 1 << 16;

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut fields = Fields::default();
    decoder.read(block, &mut fields, ENOUGH)?;
    assert!(!fields.is_cut());
    let show = |field: Field<'_>| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        format!("{}={}", text(field.name), text(field.value))
    };
    Ok(fields.iter().map(show).collect())
}

/// Three requests of one connection (RFC 7541 appendix C.3, and C.4 with the Huffman code).
const PLAIN: [&[u8]; 3] = [
    b"\x82\x86\x84\x41\x0fwww.example.com",
    b"\x82\x86\x84\xbe\x58\x08no-cache",
    b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
];
const CODED: [&[u8]; 3] = [
    b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
    b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
];

#[test]
fn blocks_of_the_specification_are_read() {
    let expected = [
        ":method=GET :scheme=http :path=/ :authority=www.example.com",
        ":method=GET :scheme=http :path=/ :authority=www.example.com cache-control=no-cache",
        ":method=GET :scheme=https :path=/index.html :authority=www.example.com custom-key=custom-value",
    ];
    for blocks in [PLAIN, CODED] {
        let mut decoder = Decoder::new();
        for (block, expected) in blocks.into_iter().zip(expected) {
            assert_eq!(read(&mut decoder, block).unwrap().join(" "), expected);
        }
    }
}

#[test]
fn blocks_that_say_nothing() {
    let blocks: [&[u8]; 10] = [
        // No such field; one that nobody knows yet; a name that nobody knows.
        b"\x80",
        b"\xbe",
        b"\x7f\x00\x01a",
        // Cut off: in an integer, before a string, in it.
        b"\xff",
        b"\x41",
        b"\x41\x05abc",
        // An integer that is too large; a table that is; a size behind a field.
        b"\xff\x80\x80\x80\x80\x01",
        b"\x3f\xe2\x1f",
        b"\x82\x20",
        // The code of no string.
        b"\x41\x81\x00",
    ];
    for block in blocks {
        assert_eq!(
            read(&mut Decoder::new(), block),
            Err(Malformed),
            "{block:x?}"
        );
    }
}

#[test]
fn what_is_written_reads_back() {
    let long = "v".repeat(300);
    let fields = [
        ("x", "y", false),
        ("authorization", &long, true),
        ("cookie", "", false),
    ];
    let mut block = Vec::new();
    for (name, value, is_sensitive) in fields {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        let field = Field {
            name,
            value,
            is_sensitive,
        };
        write(field, &mut block);
    }
    let mut read = Fields::default();
    Decoder::new().read(&block, &mut read, ENOUGH).unwrap();
    let shown = read.iter().map(|f| (f.name, f.value, f.is_sensitive));
    assert!(shown.eq(fields.map(|(n, v, s)| (n.as_bytes(), v.as_bytes(), s))));
    let mut block = Vec::new();
    write_response("Content-Type", b"text/plain", &mut block);
    write_response("X-Other", b"1", &mut block);
    assert_eq!(block, b"\x0f\x10\x0atext/plain\x00\x07x-other\x011");
}

/// What is beyond the limit is not kept, and known to later blocks all the same.
#[test]
fn fields_beyond_the_limit() {
    let (mut decoder, mut fields) = (Decoder::new(), Fields::default());
    let block = [PLAIN[0], &[0xbe; 60]].concat();
    decoder.read(&block, &mut fields, 1000).unwrap();
    assert!(fields.is_cut() && fields.size() <= 1000 && fields.excess() == 1);
    assert_eq!(fields.len(), 3 + (1000 - 42 - 43 - 38) / 57);
    let mut decoder = Decoder::new();
    decoder.read(PLAIN[0], &mut fields, 100).unwrap();
    assert_eq!(fields.len(), 2);
    assert_eq!(
        read(&mut decoder, b"\xbe").unwrap(),
        [":authority=www.example.com"]
    );
    // Nobody reads on without end.
    let block = [PLAIN[0], &[0xbe; 90]].concat();
    decoder.read(&block, &mut fields, 1000).unwrap();
    assert_eq!(fields.excess(), ABUSE + 1);
}
