//! Heads of requests as HTTP/2 compresses them (RFC 7541).

mod huffman;
mod table;

use self::table::{OVERHEAD, Table};

/// How many times as large as it may be a head is read, since later blocks may be about it.
const ABUSE: usize = 4;

/// A block that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads the blocks of one connection, one after the other: each may be about fields of those before.
pub(super) struct Decoder(Table);

/// The fields of a block.
#[derive(Default)]
pub(super) struct Fields {
    /// Names and values.
    bytes: Vec<u8>,
    list: Vec<Place>,
    /// What they take, as limits count it (RFC 9113 section 6.5.2).
    size: usize,
    /// What all take, those beyond the limit too.
    all: usize,
    /// Whether there are some, and whether they are so many that nobody reads on.
    is_cut: bool,
    is_abuse: bool,
}

/// Where a field lies.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    value: usize,
    end: usize,
    is_sensitive: bool,
}

/// A field of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'f> {
    pub(super) name: &'f [u8],
    pub(super) value: &'f [u8],
    /// Whether nobody on its way may keep it in a table (RFC 7541 section 7.1.3).
    pub(super) is_sensitive: bool,
}

/// What a block is made of (section 6).
enum Part<'b> {
    /// A field that is known.
    Known(usize),
    Literal {
        name: Name<'b>,
        value: Text<'b>,
        indexing: Indexing,
    },
    /// Another size for the table.
    Resize(usize),
}

enum Name<'b> {
    Known(usize),
    Text(Text<'b>),
}

/// A string (section 5.2).
struct Text<'b> {
    bytes: &'b [u8],
    is_coded: bool,
}

/// Whether later blocks may be about a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Indexing {
    Yes,
    No,
    Never,
}

impl Decoder {
    /// Nothing was read yet.
    pub(super) fn new() -> Self {
        Self(Table::new())
    }

    /// Reads a block; of its fields as many as take `most` bytes, and none behind those that are an abuse.
    ///
    /// # Errors
    /// Where it is none. Nothing on the connection can be read any more then, as behind an abuse.
    pub(super) fn read(
        &mut self,
        block: &[u8],
        fields: &mut Fields,
        most: usize,
    ) -> Result<(), Malformed> {
        fields.clear();
        let read = self.parts(block, |table, part| {
            match part {
                Part::Known(number) => {
                    let (name, value) = table.get(number).ok_or(Malformed)?;
                    fields.push(name, value);
                }
                Part::Literal {
                    name,
                    value,
                    indexing,
                } => fields.literal(table, (&name, &value), indexing)?,
                Part::Resize(limit) => return table.resize(limit).ok_or(Malformed),
            }
            fields.keep(most)
        });
        if fields.is_abuse { Ok(()) } else { read }
    }

    fn parts(
        &mut self,
        block: &[u8],
        mut take: impl FnMut(&mut Table, Part<'_>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let (mut rest, mut has_fields) = (block, false);
        while !rest.is_empty() {
            let part = part(&mut rest)?;
            // A size stands before all fields (section 4.2).
            match part {
                Part::Resize(_) if has_fields => return Err(Malformed),
                Part::Resize(_) => {}
                Part::Known(_) | Part::Literal { .. } => has_fields = true,
            }
            take(&mut self.0, part)?;
        }
        Ok(())
    }
}

impl Fields {
    /// In the order of the block.
    pub(super) fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.list.iter().map(|place| Field {
            name: self.bytes.get(place.start..place.value).unwrap_or_default(),
            value: self.bytes.get(place.value..place.end).unwrap_or_default(),
            is_sensitive: place.is_sensitive,
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// What they take, as limits count it.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Whether the block has more than were kept.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many times as large as it may be the library is to get the head; 0 where that is not too large.
    pub(super) fn excess(&self) -> usize {
        if self.is_abuse {
            ABUSE + 1
        } else {
            usize::from(self.is_cut)
        }
    }

    /// Forgets all, and wipes it: there may be a token.
    pub(super) fn clear(&mut self) {
        self.bytes.fill(0);
        self.bytes.clear();
        self.list.clear();
        (self.size, self.all) = (0, 0);
        (self.is_cut, self.is_abuse) = (false, false);
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.add(start, start + name.len(), false);
    }

    fn add(&mut self, start: usize, value: usize, is_sensitive: bool) {
        let end = self.bytes.len();
        self.size += end - start + OVERHEAD;
        self.all += end - start + OVERHEAD;
        self.list.push(Place {
            start,
            value,
            end,
            is_sensitive,
        });
    }

    fn literal(
        &mut self,
        table: &mut Table,
        (name, value): (&Name<'_>, &Text<'_>),
        indexing: Indexing,
    ) -> Result<(), Malformed> {
        let start = self.bytes.len();
        match name {
            Name::Known(number) => {
                let (name, _) = table.get(*number).ok_or(Malformed)?;
                self.bytes.extend_from_slice(name);
            }
            Name::Text(text) => text.read(&mut self.bytes)?,
        }
        let middle = self.bytes.len();
        value.read(&mut self.bytes)?;
        if indexing == Indexing::Yes {
            let name = self.bytes.get(start..middle).unwrap_or_default();
            table.insert(name, self.bytes.get(middle..).unwrap_or_default());
        }
        self.add(start, middle, indexing == Indexing::Never);
        Ok(())
    }

    /// Forgets the last field where all take more than `most` bytes; an error where nobody is to read on.
    fn keep(&mut self, most: usize) -> Result<(), Malformed> {
        if self.size > most
            && let Some(last) = self.list.pop()
        {
            self.is_cut = true;
            if let Some(bytes) = self.bytes.get_mut(last.start..) {
                bytes.fill(0);
            }
            self.bytes.truncate(last.start);
            self.size -= last.end - last.start + OVERHEAD;
        }
        self.is_abuse = self.all > most.saturating_mul(ABUSE);
        if self.is_abuse {
            Err(Malformed)
        } else {
            Ok(())
        }
    }
}

impl Text<'_> {
    fn read(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.is_coded {
            return huffman::decode(self.bytes, out);
        }
        out.extend_from_slice(self.bytes);
        Ok(())
    }
}

fn part<'b>(rest: &mut &'b [u8]) -> Result<Part<'b>, Malformed> {
    let first = *rest.first().ok_or(Malformed)?;
    let indexing = match first {
        0x80.. => {
            return match integer(rest, 7)? {
                0 => Err(Malformed),
                number => Ok(Part::Known(number)),
            };
        }
        0x40..0x80 => Indexing::Yes,
        0x20..0x40 => return Ok(Part::Resize(integer(rest, 5)?)),
        0x10..0x20 => Indexing::Never,
        0..0x10 => Indexing::No,
    };
    let bits = if indexing == Indexing::Yes { 6 } else { 4 };
    let name = match integer(rest, bits)? {
        0 => Name::Text(text(rest)?),
        number => Name::Known(number),
    };
    Ok(Part::Literal {
        name,
        value: text(rest)?,
        indexing,
    })
}

fn text<'b>(rest: &mut &'b [u8]) -> Result<Text<'b>, Malformed> {
    let is_coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let len = integer(rest, 7)?;
    let (bytes, tail) = rest.split_at_checked(len).ok_or(Malformed)?;
    *rest = tail;
    Ok(Text { bytes, is_coded })
}

/// An integer that begins in the last `bits` of the first byte (section 5.1). Four more bytes are enough for all that
/// fits a block.
fn integer(rest: &mut &[u8], bits: u32) -> Result<usize, Malformed> {
    let (first, mut tail) = rest.split_first().ok_or(Malformed)?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (next, after) = tail.split_first().ok_or(Malformed)?;
            tail = after;
            value += usize::from(next & 0x7f) << shift;
            shift += 7;
            match next {
                0..0x80 => break,
                _ if shift == 28 => return Err(Malformed),
                _ => {}
            }
        }
    }
    *rest = tail;
    Ok(value)
}

/// Adds a field to a block that is about no other block.
pub(super) fn write(field: Field<'_>, block: &mut Vec<u8>) {
    block.push(if field.is_sensitive { 0x10 } else { 0 });
    write_text(field.name, block);
    write_text(field.value, block);
}

/// Adds a field of a response; its name may be in any case.
pub(super) fn write_response(name: &str, value: &[u8], block: &mut Vec<u8>) {
    if let Some(number) = table::number(name) {
        write_integer(number, 4, block);
    } else {
        block.push(0);
        write_integer(name.len(), 7, block);
        block.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    write_text(value, block);
}

/// Adds the status of a response.
pub(super) fn write_status(status: u16, block: &mut Vec<u8>) {
    match status {
        200 => block.push(0x88),
        204 => block.push(0x89),
        206 => block.push(0x8a),
        304 => block.push(0x8b),
        404 => block.push(0x8d),
        _ => write_response(":status", status.to_string().as_bytes(), block),
    }
}

fn write_text(text: &[u8], block: &mut Vec<u8>) {
    write_integer(text.len(), 7, block);
    block.extend_from_slice(text);
}

/// Adds an integer that begins in the last `bits` of a byte whose others are zero.
#[expect(clippy::cast_possible_truncation, reason = "it is below 128 each time")]
fn write_integer(value: usize, bits: u32, block: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    if value < most {
        block.push(value as u8);
        return;
    }
    block.push(most as u8);
    let mut left = value - most;
    while left >= 0x80 {
        block.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    block.push(left as u8);
}

#[cfg(test)]
mod tests;
