//! Reads a denylist file, whole or not at all.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use indicatif::ProgressBar;
use rayon::iter::{ParallelBridge as _, ParallelIterator as _};
use zeroize::Zeroizing;

use super::{
    Reading,
    blocks::Blocks,
    folder, gzip,
    line::{self, Grammar, Line, LineError},
    lines::{Lines, LinesError},
};
use crate::{
    denylist::{Claims, HashedRecord, Record, Skipped},
    wiping::wipe_registers,
};

/// Largest file in bytes; ten million long tokens fit.
const MAX_FILE: u64 = 16 << 30;
/// Most skipped lines that are named one by one.
const MAX_NAMED: usize = 20;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A file of entries, or a folder of such files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// How its lines are read.
    pub grammar: Grammar,
}

impl Source {
    /// The files that this source is now: itself, or the lists in the folder that it is.
    ///
    /// # Errors
    /// Where it is a folder that can't be read, or one without any list: an unmounted volume looks like that.
    pub fn files(&self) -> Result<Vec<Self>, FileError> {
        let lists = match self.grammar {
            Grammar::Entries => {
                folder::lists(&self.path).map_err(|error| failed(&self.path, error))?
            }
            // Its folder would be read by names that its lists don't have.
            Grammar::Wallarm => None,
        };
        match lists {
            None => Ok(vec![self.clone()]),
            Some(lists) if lists.is_empty() => Err(FileError::NoLists(self.path.clone())),
            Some(lists) => Ok(lists
                .into_iter()
                .map(|path| Self {
                    path,
                    grammar: self.grammar,
                })
                .collect()),
        }
    }
}

/// What a file held besides its records.
#[derive(Debug, Default)]
pub struct Summary {
    /// Entries, before those that are given twice are merged.
    pub entries: u64,
    /// Those of them that name claims of JWTs.
    pub claims: u64,
    /// Lines that were left out.
    pub skipped: u64,
    /// The first of them.
    pub named: Vec<SkippedLine>,
}

/// A line that was left out.
#[derive(Clone, Copy, Debug)]
pub struct SkippedLine {
    /// Its number, counted from 1.
    pub number: u64,
    /// Why.
    pub why: Skipped,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is none.
    #[error("{}: there is no such file", .0.display())]
    NotFound(PathBuf),
    /// It may not be read.
    #[error("{}: may not be read by this user; check its mode and the folders above it", .0.display())]
    Denied(PathBuf),
    /// It is no file.
    #[error("{}: is {what}; a denylist is a regular file with one token a line", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It is larger than any list.
    #[error("{}: {bytes} bytes are more than a denylist can have ({MAX_FILE})", path.display())]
    TooLarge {
        /// What was given.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Reading failed.
    #[error("{}: can't be read: {error}", path.display())]
    Io {
        /// What was given.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A folder without lists.
    #[error(
        "{}: there is no *.list or *.list.gz in this folder; an empty list is an empty file", .0.display()
    )]
    NoLists(PathBuf),
    /// A gzip file that is broken, or isn't whole.
    #[error("{}: a gzip file that is damaged or cut short ({error})", path.display())]
    Gzip {
        /// What was given.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A gzip file that expands to more than a list does.
    #[error("{}: a gzip file that expands to far more than a list of tokens does", .0.display())]
    Expands(PathBuf),
    /// A line is malformed.
    #[error("{}:{number}: {error}", path.display())]
    Line {
        /// What was given.
        path: PathBuf,
        /// The line, counted from 1.
        number: u64,
        /// What is wrong with it.
        error: LineError,
    },
}

/// The entries of files.
#[derive(Debug, Default)]
pub struct Records {
    /// Of tokens.
    pub tokens: Vec<Record>,
    /// Those that are known by their SHA-256 alone.
    pub hashed: Vec<HashedRecord>,
    /// Of those of `tokens` that name claims of JWTs: what leads to them.
    pub claims: Vec<Claims>,
}

/// Appends the records of a file to `records`; moves the bar on by the bytes of text.
///
/// # Errors
/// Where any line of it is malformed or it can't be read; then nothing is appended.
pub fn read(
    source: &Source,
    reading: Reading<'_>,
    records: &mut Records,
    bar: &ProgressBar,
) -> Result<Summary, FileError> {
    let held = (
        records.tokens.len(),
        records.hashed.len(),
        records.claims.len(),
    );
    let result = open(&source.path).and_then(|(file, written)| {
        let file = Box::new(bar.wrap_read(file));
        read_blocks(source, reading, written, file, records)
    });
    if result.is_err() {
        records.tokens.truncate(held.0);
        records.hashed.truncate(held.1);
        records.claims.truncate(held.2);
    }
    result
}

pub(super) fn failed(path: &Path, error: io::Error) -> FileError {
    let (kind, path) = (error.kind(), path.to_owned());
    if matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory) {
        FileError::NotFound(path)
    } else if kind == ErrorKind::PermissionDenied {
        FileError::Denied(path)
    } else if kind == ErrorKind::FileTooLarge {
        FileError::Expands(path)
    } else if gzip::is_damage(kind) {
        FileError::Gzip { path, error }
    } else {
        FileError::Io { path, error }
    }
}

/// What the file holds, and when it was last written.
pub(super) fn open(path: &Path) -> Result<(Box<dyn Read + Send>, SystemTime), FileError> {
    let failed = |error| failed(path, error);
    // Asked before opening: to open a named pipe would wait for its writer.
    check_kind(path, &path.metadata().map_err(failed)?)?;
    // Nor wait where it has become one since.
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_kind(path, &metadata)?;
    if metadata.len() > MAX_FILE {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            bytes: metadata.len(),
        });
    }
    let written = metadata.modified().map_err(failed)?;
    let contents = gzip::expanded(file, metadata.len()).map_err(failed)?;
    Ok((contents, written))
}

fn check_kind(path: &Path, metadata: &std::fs::Metadata) -> Result<(), FileError> {
    let what = if metadata.is_file() {
        return Ok(());
    } else if metadata.is_dir() {
        "a directory"
    } else {
        "a device, a pipe or a socket"
    };
    Err(FileError::NotAFile {
        path: path.to_owned(),
        what,
    })
}

/// What a block of lines held; lines are numbered from its first.
#[derive(Default)]
struct Block {
    records: Records,
    summary: Summary,
    lines: u64,
}

/// Why reading a block ended.
enum Stop {
    Line(LineError),
    Io(io::Error),
}

impl From<LineError> for Stop {
    fn from(error: LineError) -> Self {
        Self::Line(error)
    }
}

impl Stop {
    fn of(self, source: &Source, number: u64) -> FileError {
        let path = &source.path;
        match self {
            Self::Line(error) => FileError::Line {
                path: path.clone(),
                number,
                error,
            },
            Self::Io(error) => failed(path, error),
        }
    }
}

/// Reads the blocks of a file, as many at once as there are processors.
fn read_blocks(
    source: &Source,
    reading: Reading<'_>,
    written: SystemTime,
    file: Box<dyn Read + Send>,
    records: &mut Records,
) -> Result<Summary, FileError> {
    let read = |(index, block): (usize, io::Result<Zeroizing<Vec<u8>>>)| {
        let lines = match block {
            Ok(block) => read_lines(source, reading, written, &block, index == 0),
            Err(error) => Err((0, Stop::Io(error))),
        };
        wipe_registers();
        (index, lines)
    };
    let mut blocks: Vec<_> = Blocks::new(file)
        .enumerate()
        .par_bridge()
        .map(read)
        .collect();
    blocks.sort_unstable_by_key(|(index, _)| *index);
    let of = |(_, block): &(usize, Result<Block, (u64, Stop)>)| {
        block.as_ref().map_or((0, 0), |block| {
            (block.records.tokens.len(), block.records.hashed.len())
        })
    };
    let (tokens, hashed) = blocks
        .iter()
        .map(of)
        .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    records.tokens.reserve_exact(tokens);
    records.hashed.reserve_exact(hashed);
    let (mut summary, mut before) = (Summary::default(), 0);
    for (_, block) in blocks {
        let block = block.map_err(|(line, stop)| stop.of(source, before + line))?;
        records.tokens.extend(block.records.tokens);
        records.hashed.extend(block.records.hashed);
        records.claims.extend(block.records.claims);
        summary.join(block.summary, before);
        before += block.lines;
    }
    Ok(summary)
}

/// Reads the lines of a block, `first` that of the file.
///
/// # Errors
/// The line, counted from 1 in the block, and what is wrong with it.
fn read_lines(
    source: &Source,
    reading: Reading<'_>,
    written: SystemTime,
    block: &[u8],
    first: bool,
) -> Result<Block, (u64, Stop)> {
    let mut read = Block::default();
    let mut lines = Lines::new(block);
    loop {
        let (number, text) = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(read),
            Err(LinesError::TooLong(number)) => return Err((number, LineError::TooLong.into())),
            Err(LinesError::Io(error)) => return Err((0, Stop::Io(error))),
        };
        read.lines = number;
        let text = if first { unmarked(number, text) } else { text };
        let line = line::parse(source.grammar, reading, written, text);
        match line.map_err(|error| (number, error.into()))? {
            Line::Entry(entry) => {
                read.summary.entries += 1;
                read.records.tokens.push(Record::from(&entry));
            }
            Line::Hashed(record, _said) => {
                read.summary.entries += 1;
                read.records.hashed.push(record);
            }
            Line::Claims(entry, claims) => {
                read.summary.entries += 1;
                read.summary.claims += 1;
                read.records.tokens.push(Record::from(&entry));
                read.records.claims.push(claims);
            }
            Line::Skipped(why) => read.summary.skip(SkippedLine { number, why }),
            Line::Blank => {}
        }
    }
}

/// The line without the mark that may stand before the first.
pub(super) fn unmarked(number: u64, line: &[u8]) -> &[u8] {
    if number == 1 {
        line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
    } else {
        line
    }
}

impl Summary {
    /// Takes in that of a later block, before which so many lines stand.
    fn join(&mut self, later: Self, lines: u64) {
        self.entries += later.entries;
        self.claims += later.claims;
        self.skipped += later.skipped;
        let numbered = later.named.into_iter().map(|line| SkippedLine {
            number: lines + line.number,
            ..line
        });
        self.named.extend(numbered);
        self.named.truncate(MAX_NAMED);
    }

    fn skip(&mut self, line: SkippedLine) {
        self.skipped += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _};

    use flate2::{Compression, write::GzEncoder};
    use tokenblock_ebpf::digest::InstallationKey;

    use super::*;

    const READING: Reading<'_> = Reading {
        key: &InstallationKey([5; 16]),
        min_token_length: 8,
        jwt_expiry: None,
    };

    fn read_path(path: &Path) -> Result<(Vec<Record>, Summary), FileError> {
        let source = Source {
            path: path.to_owned(),
            grammar: Grammar::Entries,
        };
        let mut records = Records::default();
        let bar = ProgressBar::hidden();
        read(&source, READING, &mut records, &bar).map(|summary| (records.tokens, summary))
    }

    fn with_file<T>(text: &[u8], job: impl FnOnce(&Path) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::write(&path, text).unwrap();
        job(&path)
    }

    fn read_text(text: &[u8]) -> Result<(Vec<Record>, Summary), FileError> {
        with_file(text, read_path)
    }

    #[test]
    fn crlf_byte_order_mark_comments_and_a_missing_last_line_end() {
        let text = "\u{feff}first-token\r\n\r\n# comment\r\nshort\r\nsecond-token action=alert";
        let (records, summary) = read_text(text.as_bytes()).unwrap();
        let (plain, _) = read_text(b"first-token\nsecond-token action=alert\n").unwrap();
        assert_eq!(records, plain);
        assert_eq!((summary.entries, summary.skipped), (2, 1));
        assert_eq!(summary.named[0].number, 4);
    }

    #[test]
    fn a_malformed_line_refuses_the_file_and_names_the_place_only() {
        let error = read_text(b"first-token\n# fine\nsecond-secret oops\n").expect_err("refused");
        let text = error.to_string();
        assert!(
            text.contains("list:3: what follows the token is no attribute"),
            "{text}"
        );
        assert!(!text.contains("secret") && !text.contains("oops"), "{text}");

        let long = read_text("x".repeat(100_000).as_bytes())
            .expect_err("refused")
            .to_string();
        assert!(long.contains("list:1: longer than 64 KiB"), "{long}");
        let binary = read_text(b"\x7fELF\x02\x01\x01\0\0")
            .expect_err("refused")
            .to_string();
        assert!(
            binary.contains("list:1: a control or invisible character"),
            "{binary}"
        );
    }

    #[test]
    fn what_is_no_readable_file_is_refused_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let text = |path: &Path| read_path(path).expect_err("refused").to_string();

        assert!(text(&path("none")).ends_with("none: there is no such file"));
        assert!(text(folder.path()).contains("is a directory"));
        assert!(text(Path::new("/dev/null")).contains("a device, a pipe or a socket"));

        let sparse = File::create(path("sparse")).unwrap();
        sparse.set_len(MAX_FILE + 1).unwrap();
        assert!(text(&path("sparse")).contains("more than a denylist can have"));

        fs::write(path("mine"), "first-token").unwrap();
        fs::set_permissions(path("mine"), fs::Permissions::from_mode(0o000)).unwrap();
        // Root reads it all the same.
        if !rustix::process::geteuid().is_root() {
            assert!(text(&path("mine")).contains("may not be read by this user"));
        }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_gzip_file_is_read_as_what_it_expands_to() {
        let text: &[u8] = b"first-token\n# comment\nsecond-token action=alert\n";
        let (plain, _) = read_text(text).unwrap();
        assert_eq!(read_text(&gzip(text)).unwrap().0, plain);
        let (one, two) = text.split_at(16);
        let members = [gzip(one), gzip(two)].concat();
        assert_eq!(read_text(&members).unwrap().0, plain);

        let error = read_text(&gzip(b"first-token\nsecond oops\n")).expect_err("refused");
        assert!(error.to_string().contains("list:2: "), "{error}");
    }

    #[test]
    fn a_gzip_file_that_is_cut_or_damaged_gives_nothing() {
        let whole = gzip("some-token\n".repeat(1_000).as_bytes());
        for cut in 2..whole.len() {
            let error = read_text(&whole[..cut]).expect_err("refused");
            assert!(matches!(error, FileError::Gzip { .. }), "{cut}: {error}");
        }
        let mut damaged = whole.clone();
        let checksum = damaged.len() - 8;
        damaged[checksum] ^= 1;
        let error = read_text(&damaged).expect_err("refused");
        assert!(matches!(error, FileError::Gzip { .. }), "{error}");
    }

    #[test]
    fn what_expands_without_end_is_refused() {
        let bomb = gzip(&vec![b'\n'; (16 << 20) + 1]);
        let error = read_text(&bomb).expect_err("refused");
        assert!(matches!(error, FileError::Expands(_)), "{error}");
        // Blank lines are no harm up to there.
        let (records, _) = read_text(&gzip(&vec![b'\n'; 16 << 20])).unwrap();
        assert!(records.is_empty());
    }

    #[test]
    fn many_skipped_lines_are_counted_and_some_are_named() {
        let (records, summary) = read_text("short\n".repeat(1_000).as_bytes()).unwrap();
        assert!(records.is_empty());
        assert_eq!((summary.skipped, summary.named.len()), (1_000, MAX_NAMED));
    }
}
