//! Bounds what a client may send in HTTP/2 frames that cost work and carry nothing.
//!
//! The frames are only counted here, by their heads (RFC 9113 section 4.1); the HTTP/2 library reads them.

use tokio::time::{Duration, Instant};

use super::{
    counters::Closed,
    http2::frame::{
        CONTINUATION, DATA, END_STREAM, HEADERS, Head, PING, PRIORITY, RST_STREAM, SETTINGS,
        UNKNOWN, WINDOW_UPDATE, Walk,
    },
    settings::Limits,
};

/// Over which time frames are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// The first bytes of a client that speaks HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes sent for each frame that a client may answer them with: two for a DATA frame, even one of a few bytes.
const BYTES_A_FRAME: u64 = 16;
/// As many bytes as a request counts for: four frames of unknown kinds may come with it (its priority: RFC 9218).
const HEADERS_ALLOW: usize = 64;

/// What a connection speaks, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    /// So many bytes of the preface have come.
    Preface(usize),
    Http2,
    Other,
}

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    speech: Speech,
    walk: Walk,
    window: Instant,
    control: u32,
    resets: u32,
    /// Frames that are due for what was sent, or for requests.
    due: u64,
    /// For how many bytes sent; in this window and in the one before.
    sent: [u64; 2],
    max_control: u32,
    max_resets: u32,
}

impl Frames {
    /// A connection of which nothing has come yet.
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            speech: Speech::Preface(0),
            walk: Walk::default(),
            window: Instant::now(),
            control: 0,
            resets: 0,
            due: 0,
            sent: [0; 2],
            max_control: limits.http2_control_frames,
            max_resets: limits.http2_resets,
        }
    }

    /// Whether enough has come to tell what the connection speaks.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.speech, Speech::Preface(_))
    }

    /// Whether the connection speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.speech == Speech::Http2
    }

    /// Takes the next bytes from the client.
    ///
    /// # Errors
    /// Which limit they go beyond.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        match self.speech {
            Speech::Other => Ok(()),
            Speech::Http2 => self.frames(bytes),
            Speech::Preface(have) => {
                let rest = PREFACE.get(have..).unwrap_or_default();
                let n = rest.len().min(bytes.len());
                if rest.get(..n) != bytes.get(..n) {
                    self.speech = Speech::Other;
                } else if n < rest.len() {
                    self.speech = Speech::Preface(have + n);
                } else {
                    self.speech = Speech::Http2;
                    return self.frames(bytes.get(n..).unwrap_or_default());
                }
                Ok(())
            }
        }
    }

    fn frames(&mut self, mut bytes: &[u8]) -> Result<(), Closed> {
        while let Some(head) = self.walk.next(&mut bytes) {
            self.frame(head)?;
        }
        Ok(())
    }

    /// Notes that so many bytes were sent to the client.
    pub(super) fn on_sent(&mut self, bytes: usize) {
        let [now, _] = &mut self.sent;
        *now = now.saturating_add(bytes as u64);
    }

    fn frame(&mut self, head: Head) -> Result<(), Closed> {
        let Head {
            len, kind, flags, ..
        } = head;
        match kind {
            RST_STREAM => self.resets += 1,
            PRIORITY | SETTINGS | PING | CONTINUATION => self.control += 1,
            DATA if len == 0 && flags & END_STREAM == 0 => self.control += 1,
            HEADERS => {
                self.on_sent(HEADERS_ALLOW);
                return Ok(());
            }
            WINDOW_UPDATE | UNKNOWN.. => self.due += 1,
            _ => return Ok(()),
        }
        if self.window.elapsed() > WINDOW {
            self.window = Instant::now();
            (self.control, self.resets, self.due) = (0, 0, 0);
            let [now, _] = self.sent;
            self.sent = [0, now];
        }
        let [now, before] = self.sent;
        if self.due > now.saturating_add(before) / BYTES_A_FRAME + u64::from(self.max_control) {
            return Err(Closed::ControlFlood);
        }
        if self.resets > self.max_resets {
            return Err(Closed::ResetFlood);
        }
        if self.control > self.max_control {
            return Err(Closed::ControlFlood);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::http2::frame::HEAD;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn first_error(stream: &[u8], cut: usize) -> Option<Closed> {
        let limits = Limits {
            http2_control_frames: 2,
            http2_resets: 2,
            ..Limits::default()
        };
        let mut frames = Frames::new(&limits);
        stream
            .chunks(cut)
            .find_map(|bytes| frames.read(bytes).err())
    }

    /// Two window updates for each DATA frame of a few bytes are what some clients send.
    #[test]
    fn what_is_due_for_what_was_sent_is_no_flood() {
        let limits = Limits {
            http2_control_frames: 2,
            ..Limits::default()
        };
        let mut frames = Frames::new(&limits);
        frames.read(PREFACE).unwrap();
        let update = frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
        let priority = frame(0x10, 0, b"u=1");
        for _ in 0..1000 {
            frames.on_sent(HEAD + 23);
            frames.read(&[&update[..], &update].concat()).unwrap();
        }
        for _ in 0..1000 {
            let request = frame(HEADERS, END_STREAM, b"h");
            frames.read(&[request, priority.clone()].concat()).unwrap();
        }
        for flood in [update, priority] {
            let flood = flood.repeat(4000);
            let mut frames = Frames::new(&limits);
            frames.read(PREFACE).unwrap();
            assert_eq!(frames.read(&flood), Err(Closed::ControlFlood));
        }
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let with = |frames: &[Vec<u8>]| [&PREFACE[..], &frames.concat()].concat();
        let ping = || frame(PING, 0, &[PING; 8]);
        let reset = || frame(RST_STREAM, 0, &[0; 4]);
        let harmless = [
            frame(DATA, 0, &[PING; 300]),
            frame(DATA, END_STREAM, &[]),
            frame(1, 0, &[RST_STREAM; 40]),
            ping(),
            ping(),
            reset(),
            reset(),
        ];
        assert!(!Frames::new(&Limits::default()).is_http2());
        let pings = [&harmless[..], &[ping()]].concat();
        let resets = [&harmless[..], &[reset()]].concat();
        let empty = [&harmless[..], &[frame(DATA, 0, &[])]].concat();
        for cut in [1, 2, 7, 9, 64, 4096] {
            assert_eq!(first_error(&with(&harmless), cut), None);
            assert_eq!(first_error(&with(&pings), cut), Some(Closed::ControlFlood));
            assert_eq!(first_error(&with(&resets), cut), Some(Closed::ResetFlood));
            assert_eq!(first_error(&with(&empty), cut), Some(Closed::ControlFlood));
        }
    }
}
