//! Fields that are known by their numbers (RFC 7541 section 2.3).

use std::collections::VecDeque;

/// Fields that everybody knows, from number 1 on (appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The numbers of the fields that everybody knows, by the lengths of their names; 0 for none.
static BY_LENGTH: [[u8; 14]; 28] = {
    let mut all = [[0; 14]; 28];
    let mut index = STATIC.len();
    while index > 0 {
        index -= 1;
        let same = &mut all[STATIC[index].0.len()];
        let mut place = same.len() - 1;
        while place > 0 {
            same[place] = same[place - 1];
            place -= 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "there are 61")]
        let number = index as u8 + 1;
        same[0] = number;
    }
    all
};

/// The number of a field with this name, in any case, that everybody knows.
pub(super) fn number(name: &str) -> Option<usize> {
    let numbers = BY_LENGTH
        .get(name.len())?
        .iter()
        .map(|number| usize::from(*number));
    numbers.take_while(|number| *number > 0).find(|number| {
        let known = STATIC.get(number - 1);
        known.is_some_and(|(known, _)| known.eq_ignore_ascii_case(name))
    })
}

/// Bytes that the fields of a connection may take: what is true as long as nothing else is announced (RFC 9113 section 6.5.2).
const SIZE: usize = 4096;
/// Bytes that a field takes besides its name and value (section 4.1).
pub(super) const OVERHEAD: usize = 32;

/// The fields of one connection; the newest has the smallest number behind those that everybody knows.
pub(super) struct Table {
    /// Names and values, of the oldest field first. What was forgotten is zero.
    bytes: Vec<u8>,
    /// The newest first.
    entries: VecDeque<Entry>,
    /// What they take.
    size: usize,
    /// What they may.
    limit: usize,
}

/// Where a field lies in the bytes.
#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    value: usize,
    end: usize,
}

impl Entry {
    fn size(self) -> usize {
        self.end - self.start + OVERHEAD
    }
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            entries: VecDeque::new(),
            size: 0,
            limit: SIZE,
        }
    }

    /// Name and value of the field with this number.
    pub(super) fn get(&self, number: usize) -> Option<(&[u8], &[u8])> {
        let index = number.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - STATIC.len())?;
        let name = self.bytes.get(entry.start..entry.value)?;
        Some((name, self.bytes.get(entry.value..entry.end)?))
    }

    /// Takes in a field; forgets the oldest ones for it, and itself where there is no room at all (section 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let len = name.len() + value.len();
        self.shrink((self.limit + 1).saturating_sub(len + OVERHEAD));
        if len + OVERHEAD > self.limit {
            return;
        }
        if self.bytes.len() + len > 2 * SIZE {
            self.close_up();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.entries.push_front(Entry {
            start,
            value: start + name.len(),
            end: start + len,
        });
        self.size += len + OVERHEAD;
    }

    /// Takes another limit; `None` where it is more than was allowed (section 6.3).
    pub(super) fn resize(&mut self, limit: usize) -> Option<()> {
        (limit <= SIZE).then(|| {
            self.limit = limit;
            self.shrink(limit + 1);
        })
    }

    /// Forgets the oldest fields until they take less than `bound`.
    fn shrink(&mut self, bound: usize) {
        while self.size >= bound.max(1) {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.size -= oldest.size();
            // It may have been a token.
            if let Some(bytes) = self.bytes.get_mut(oldest.start..oldest.end) {
                bytes.fill(0);
            }
        }
    }

    /// Moves what is known to the beginning.
    fn close_up(&mut self) {
        let gone = self
            .entries
            .back()
            .map_or(self.bytes.len(), |oldest| oldest.start);
        let kept = self.bytes.len() - gone;
        self.bytes.copy_within(gone.., 0);
        if let Some(left) = self.bytes.get_mut(kept..) {
            left.fill(0);
        }
        self.bytes.truncate(kept);
        for Entry { start, value, end } in &mut self.entries {
            *start -= gone;
            *value -= gone;
            *end -= gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(table: &Table) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let numbers = STATIC.len() + 1..;
        let fields = numbers.map_while(|number| table.get(number));
        fields.map(|(n, v)| (text(n), text(v))).collect()
    }

    #[test]
    fn the_oldest_fields_leave_for_the_newest() {
        let mut table = Table::new();
        for number in 0..1000 {
            let value = format!("{number:060}");
            table.insert(b"name", value.as_bytes());
            let known = (number + 1).min(SIZE / (64 + OVERHEAD));
            let expected = (0..known).map(|age| {
                let value = format!("{:060}", number - age);
                ("name".to_owned(), value)
            });
            assert!(names(&table).into_iter().eq(expected), "{number}");
        }
        assert!(table.bytes.capacity() <= 4 * SIZE);
        let (name, _) = table.get(58).unwrap();
        assert_eq!(name, b"user-agent");
        assert!(table.get(0).is_none());
        assert!(table.get(STATIC.len() + 1 + SIZE / 96).is_none());
    }

    #[test]
    fn what_is_forgotten_is_wiped() {
        let mut table = Table::new();
        let secret = b"a-token-that-was-here";
        table.insert(b"authorization", secret);
        table.insert(b"x", &[b'x'; SIZE - OVERHEAD - 1]);
        assert_eq!(names(&table).len(), 1);
        let found = |table: &Table| table.bytes.windows(secret.len()).any(|at| at == secret);
        assert!(!found(&table));
        table.insert(b"authorization", secret);
        assert!(found(&table));
        table.insert(b"x", &[b'x'; SIZE]);
        assert!(names(&table).is_empty() && !found(&table));
        assert!(table.resize(SIZE + 1).is_none());
        table.resize(0).unwrap();
        table.insert(b"", b"");
        assert!(names(&table).is_empty());
    }
}
