//! The ways to send a request.

use std::{
    net::{IpAddr, Ipv6Addr},
    thread,
    time::Duration,
};

use anyhow::Result;
use tokenblock_tests::raw::{RawClient, Segment};

/// The sequence number of the first byte, where it does not matter.
const FIRST: u32 = 1_000_000;
/// Longer than a delayed acknowledgment.
pub(super) const SETTLING: Duration = Duration::from_millis(60);
/// After which what is not acknowledged counts as lost.
const LOSS: Duration = Duration::from_millis(300);

/// A way to send a request with this token; gives what the application reads where nothing is between.
pub(super) type Play = Box<dyn Fn(&mut RawClient, &str) -> Result<Vec<u8>> + Sync>;

pub(super) struct Case {
    pub(super) name: String,
    pub(super) play: Play,
    /// A byte is urgent, which the product makes a part of the stream.
    pub(super) urgent: bool,
}

fn case(
    name: impl Into<String>,
    play: impl Fn(&mut RawClient, &str) -> Result<Vec<u8>> + Sync + 'static,
) -> Case {
    Case {
        name: name.into(),
        play: Box::new(play),
        urgent: false,
    }
}

fn request(token: &str) -> Vec<u8> {
    format!(
        "GET /a?page=2 HTTP/1.1\r\nHost: origin.test\r\nAuthorization: Bearer {token}\r\nAccept: */*\r\n\r\n"
    )
    .into_bytes()
}

/// In the middle of the token of [`request`].
pub(super) fn middle(token: &str) -> usize {
    let request = request(token);
    let at = request
        .windows(token.len())
        .position(|w| w == token.as_bytes());
    at.unwrap() + token.len() / 2
}

/// As many bytes of other content as `like` has, with line ends where it ends.
fn other(like: &[u8]) -> Vec<u8> {
    let mut bytes = vec![b'z'; like.len()];
    for (byte, end) in bytes.iter_mut().rev().zip(like.iter().rev()) {
        if !b"\r\n".contains(end) {
            break;
        }
        *byte = *end;
    }
    bytes
}

/// Makes a host ignore a segment.
type Flaw = fn(&mut Segment);

/// The flaws for which a host ignores a segment.
fn flaws() -> Vec<(&'static str, Flaw)> {
    vec![
        ("bad checksum", |s| s.bad_checksum = true),
        ("bad IP header", |s| s.bad_ip_header = true),
        ("another station's", |s| s.to_another_station = true),
        ("old timestamp", |s| {
            s.stamps = s
                .stamps
                .map(|(ours, theirs)| (ours.wrapping_sub(50_000_000), theirs));
        }),
        ("acknowledges the future", |s| {
            let ack = &mut s.tcp.acknowledgment_number;
            *ack = ack.wrapping_add(1_000_000);
        }),
        ("no ACK", |s| s.tcp.ack = false),
        ("no flag", |s| (s.tcp.ack, s.tcp.psh) = (false, false)),
        ("SYN", |s| {
            s.tcp.syn = true;
            s.tcp.sequence_number = s.tcp.sequence_number.wrapping_sub(1);
        }),
        // RFC 2385; the server has no key.
        ("MD5 signature", |s| {
            s.options = vec![
                1, 1, 19, 18, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
            ];
        }),
    ]
}

/// A segment with a flaw stands where the true one will: at the start, or in the middle of the token.
fn decoys() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, flaw) in flaws() {
        for (place, settled) in [
            ("start", true),
            ("middle", true),
            ("middle, not settled", false),
        ] {
            cases.push(case(
                format!("decoy: {name}, {place}"),
                move |client, token| {
                    client.connect(FIRST)?;
                    let stream = request(token);
                    let at = if place == "start" { 0 } else { middle(token) };
                    if settled {
                        client.deliver(0, &stream[..at])?;
                    } else {
                        client.push(0, &stream[..at])?;
                    }
                    let mut decoy = client.segment(at, other(&stream[at..]));
                    flaw(&mut decoy);
                    client.send(&decoy)?;
                    client.deliver(at, &stream[at..])?;
                    Ok(stream)
                },
            ));
        }
    }
    cases
}

/// Segments far from where the server is.
fn out_of_window() -> Vec<Case> {
    let far = |name: &str, change: fn(&mut Segment)| {
        case(format!("out of window: {name}"), move |client, token| {
            client.connect(FIRST)?;
            let (stream, at) = (request(token), middle(token));
            client.deliver(0, &stream[..at])?;
            for distance in [
                500_000_u32,
                0x3fff_0000,
                0x7fff_0000,
                0x9000_0000,
                0xfff0_0000,
            ] {
                let mut decoy = client.segment(at, other(&stream[at..]));
                let sequence = &mut decoy.tcp.sequence_number;
                *sequence = sequence.wrapping_add(distance);
                change(&mut decoy);
                client.send(&decoy)?;
            }
            client.deliver(at, &stream[at..])?;
            Ok(stream)
        })
    };
    vec![
        far("data", |_| {}),
        far("RST", |s| s.tcp.rst = true),
        far("RST alone", |s| {
            s.tcp.rst = true;
            s.payload.clear();
        }),
        far("FIN", |s| s.tcp.fin = true),
        far("FIN alone", |s| {
            s.tcp.fin = true;
            s.payload.clear();
        }),
        case("out of window: RST inside it", |client, token| {
            client.connect(FIRST)?;
            let (stream, at) = (request(token), middle(token));
            client.deliver(0, &stream[..at])?;
            // Not where the server is: RFC 5961 section 3.2.
            let mut decoy = client.bare(at + 100);
            (decoy.tcp.rst, decoy.tcp.ack) = (true, false);
            client.send(&decoy)?;
            client.deliver(at, &stream[at..])?;
            Ok(stream)
        }),
    ]
}

/// Copies with other content, other boundaries, or both.
fn copies() -> Vec<Case> {
    vec![
        case(
            "copy: other content behind the true one",
            |client, token| {
                client.connect(FIRST)?;
                let (stream, at) = (request(token), middle(token));
                client.push(0, &stream[..at])?;
                client.push(0, &other(&stream[..at]))?;
                client.push(at - 10, &other(&stream[at - 10..at]))?;
                client.deliver(at, &stream[at..])?;
                Ok(stream)
            },
        ),
        case(
            "copy: other content behind the acknowledged one",
            |client, token| {
                client.connect(FIRST)?;
                let (stream, at) = (request(token), middle(token));
                client.deliver(0, &stream[..at])?;
                for from in [0, 5, at - 10] {
                    client.push(from, &other(&stream[from..at]))?;
                }
                client.deliver(at, &stream[at..])?;
                Ok(stream)
            },
        ),
        case(
            "copy: overlaps what was taken, and goes on",
            |client, token| {
                client.connect(FIRST)?;
                let (stream, at) = (request(token), middle(token));
                client.deliver(0, &stream[..at])?;
                let mut overlap = other(&stream[at - 30..at]);
                overlap.extend_from_slice(&stream[at..]);
                client.deliver(at - 30, &overlap)?;
                Ok(stream)
            },
        ),
        case(
            "copy: overlaps what was sent, and goes on",
            |client, token| {
                client.connect(FIRST)?;
                let (stream, at) = (request(token), middle(token));
                client.push(0, &stream[..at])?;
                let mut overlap = other(&stream[at - 30..at]);
                overlap.extend_from_slice(&stream[at..]);
                client.push(at - 30, &overlap)?;
                client.deliver(at - 30, &overlap)?;
                Ok(stream)
            },
        ),
        case("copy: other boundaries", |client, token| {
            client.connect(FIRST)?;
            let (stream, at) = (request(token), middle(token));
            client.push(0, &stream[..at])?;
            client.push(at - 20, &stream[at - 20..at + 5])?;
            client.push(at - 1, &stream[at - 1..at + 6])?;
            client.deliver(at - 3, &stream[at - 3..])?;
            Ok(stream)
        }),
        case(
            "copy: queued other content ahead of the true one",
            |client, token| {
                client.connect(FIRST)?;
                let (stream, at) = (request(token), middle(token));
                client.push(at, &other(&stream[at..at + 10]))?;
                client.push(at - 3, &other(&stream[at - 3..at + 7]))?;
                client.deliver(0, &stream)?;
                Ok(stream)
            },
        ),
        case(
            "copy: true content queued, other in front",
            |client, token| {
                client.connect(FIRST)?;
                let (stream, at) = (request(token), middle(token));
                // The first copy that is queued stays.
                client.push(at, &stream[at..])?;
                client.push(at, &other(&stream[at..]))?;
                client.push(0, &stream[..at])?;
                client.await_taken(stream.len(), SETTLING)?;
                client.deliver(0, &stream[..at])?;
                client.deliver(at, &stream[at..])?;
                Ok(stream)
            },
        ),
    ]
}

/// Honest streams in unusual pieces.
pub(super) fn pieces() -> Vec<Case> {
    let mut cases = vec![
        case("pieces: out of order", |client, token| {
            client.connect(FIRST)?;
            let stream = request(token);
            let pieces: Vec<usize> = (0..stream.len()).step_by(7).collect();
            for from in pieces.iter().rev() {
                client.push(*from, &stream[*from..(from + 7).min(stream.len())])?;
            }
            for from in pieces {
                client.deliver(from, &stream[from..(from + 7).min(stream.len())])?;
            }
            Ok(stream)
        }),
        case("pieces: one byte each, every one twice", |client, token| {
            client.connect(FIRST)?;
            let stream = request(token);
            for (at, byte) in stream.iter().enumerate() {
                client.push(at, &[*byte])?;
                client.push(at, &[*byte])?;
            }
            // As after a loss: from the first that is not acknowledged.
            client.await_taken(stream.len(), SETTLING)?;
            let taken = client.taken();
            client.deliver(taken, &stream[taken..])?;
            Ok(stream)
        }),
        case("pieces: on the FIN", |client, token| {
            client.connect(FIRST)?;
            let (stream, at) = (request(token), middle(token));
            client.deliver(0, &stream[..at])?;
            let mut end = client.segment(at, &stream[at..]);
            end.tcp.fin = true;
            client.send(&end)?;
            client.await_taken(stream.len(), SETTLING)?;
            Ok(stream)
        }),
    ];
    for back in [1, 30, 90] {
        cases.push(case(
            format!("pieces: sequence numbers wrap after {back} bytes"),
            move |client, token| {
                client.connect(0_u32.wrapping_sub(back))?;
                let (stream, at) = (request(token), middle(token));
                client.deliver(0, &stream[..at])?;
                client.deliver(at, &stream[at..])?;
                Ok(stream)
            },
        ));
    }
    cases
}

/// Sends what is in front of an urgent byte, the same with it, and all.
type Urgent = fn(&mut RawClient, &[u8], &[u8], &[u8]) -> Result<()>;

/// Bytes that the urgent pointer takes out of the stream (RFC 6093).
fn urgent() -> Vec<Case> {
    let hidden = |name: &str, play: Urgent| {
        let case = case(format!("urgent: {name}"), move |client, token| {
            client.connect(FIRST)?;
            let (stream, at) = (request(token), middle(token));
            let with = [&stream[..at], b"!", &stream[at..]].concat();
            play(client, &stream[..at], &with[..=at], &with)?;
            Ok(stream)
        });
        Case {
            urgent: true,
            ..case
        }
    };
    vec![
        hidden(
            "the byte in the middle of a segment",
            |client, front, _, with| {
                let mut segment = client.segment(0, with);
                (segment.tcp.urg, segment.tcp.urgent_pointer) = (true, pointer(front.len() + 1));
                client.send(&segment)?;
                client.await_taken(with.len(), SETTLING)
            },
        ),
        hidden("the last byte of a segment", |client, _, until, with| {
            let mut segment = client.segment(0, until);
            (segment.tcp.urg, segment.tcp.urgent_pointer) = (true, pointer(until.len()));
            client.send(&segment)?;
            client.deliver(until.len(), &with[until.len()..])
        }),
        hidden(
            "said by a segment without data",
            |client, front, _, with| {
                let mut said = client.bare(0);
                (said.tcp.urg, said.tcp.urgent_pointer) = (true, pointer(front.len() + 1));
                client.send(&said)?;
                client.deliver(0, with)
            },
        ),
        hidden("pointer 0", |client, front, _, with| {
            client.deliver(0, front)?;
            let mut segment = client.segment(front.len(), &with[front.len()..]);
            (segment.tcp.urg, segment.tcp.urgent_pointer) = (true, 0);
            client.send(&segment)?;
            client.await_taken(with.len(), SETTLING)
        }),
    ]
}

fn pointer(offset: usize) -> u16 {
    u16::try_from(offset).unwrap()
}

/// What was passed is read again behind other content, which says where a body ends: in the middle of its line.
pub(super) fn framed_otherwise() -> Vec<Case> {
    let hidden = |token: &str| {
        format!("a b cGET /?access_token={token} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
    };
    let frame = "POST / HTTP/1.1\r\nContent-Length: 10\r\nX: y\r\n\r\nzzzzz";
    let behind = |body: &'static str| {
        case(format!("framing: behind {body:?}"), move |client, token| {
            client.connect(FIRST)?;
            let length = body.len();
            let post = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\nX: y\r\n\r\n{body}");
            client.deliver(0, post.as_bytes())?;
            let get = format!("GET /?access_token={token} HTTP/1.1\r\nHost: a\r\n\r\n");
            client.deliver(post.len(), get.as_bytes())?;
            Ok([post, get].concat().into_bytes())
        })
    };
    vec![
        behind("a b"),
        behind("a "),
        behind("a /?b"),
        behind("a /?access_token=b"),
        behind("Authorization: b"),
        behind("\na /b"),
        case(
            "framing: a copy of what the host ignored",
            move |client, token| {
                client.connect(FIRST)?;
                let ignored = format!("POST / HTTP/1.1\r\nX: {}", "z".repeat(frame.len() - 20));
                let mut decoy = client.segment(0, ignored);
                decoy.bad_checksum = true;
                client.send(&decoy)?;
                client.push(frame.len(), &hidden(token))?;
                thread::sleep(LOSS);
                client.deliver(0, frame.as_bytes())?;
                client.deliver(frame.len(), &hidden(token))?;
                Ok([frame.as_bytes(), &hidden(token)].concat())
            },
        ),
        case("framing: what fills a gap", move |client, token| {
            client.connect(FIRST)?;
            // What counts is that it is chunked (RFC 9112 section 6.3).
            let head =
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 50000\r\n\r\n";
            client.deliver(0, head.as_bytes())?;
            let filler = format!("0\r\n\r\n{frame}");
            client.push(head.len() + filler.len(), &hidden(token))?;
            client.deliver(head.len(), filler.as_bytes())?;
            client.deliver(head.len() + filler.len(), &hidden(token))?;
            Ok([head.as_bytes(), filler.as_bytes(), &hidden(token)].concat())
        }),
    ]
}

/// Datagrams that are put together before TCP reads them.
pub(super) fn fragments() -> Vec<Case> {
    // Over IPv6 the first has to hold the TCP header (RFC 7112).
    const HEADER: usize = 48;
    let in_fragments = |name, size: usize| {
        case(format!("fragments: {name}"), move |client, token| {
            let is_v6 = client.address().is_ipv6();
            let size = if is_v6 { size.max(HEADER) } else { size };
            client.connect(FIRST)?;
            let stream = request(token);
            for _ in 0..3 {
                client.send_in_fragments(&client.segment(0, stream.clone()), size)?;
                client.await_taken(stream.len(), LOSS)?;
            }
            Ok(stream)
        })
    };
    vec![
        in_fragments("of eight bytes", 8),
        in_fragments("a TCP header and little more", HEADER),
    ]
}

/// A datagram in one fragment, which is taken as any other.
pub(super) fn whole_fragments() -> Vec<Case> {
    vec![case("fragments: a whole one", |client, token| {
        client.connect(FIRST)?;
        let stream = request(token);
        client.send_in_fragments(&client.segment(0, stream.clone()), 1400)?;
        client.await_taken(stream.len(), LOSS)?;
        Ok(stream)
    })]
}

/// Requests that come by way of other addresses of the server, in part or whole.
pub(super) fn source_routed(ways: [IpAddr; 2]) -> Vec<Case> {
    let routed = |name: &str, from: fn(&str) -> usize| {
        case(format!("source route: {name}"), move |client, token| {
            let way = ways[usize::from(client.address().is_ipv6())];
            client.connect(FIRST)?;
            let (stream, at) = (request(token), from(token));
            if at > 0 {
                client.deliver(0, &stream[..at])?;
            }
            for _ in 0..3 {
                client.send_by(&client.segment(at, &stream[at..]), way)?;
                client.await_taken(stream.len(), LOSS)?;
            }
            Ok(stream)
        })
    };
    vec![
        routed("from the middle of the token on", middle),
        routed("all of it", |_| 0),
    ]
}

/// Requests inside packets with a routing header that is at its end, in part or whole.
pub(super) fn inside_routed(way: Ipv6Addr) -> Vec<Case> {
    let inside = |name: &str, from: fn(&str) -> usize| {
        case(format!("routed tunnel: {name}"), move |client, token| {
            client.connect(FIRST)?;
            let (stream, at) = (request(token), from(token));
            if at > 0 {
                client.deliver(0, &stream[..at])?;
            }
            for _ in 0..3 {
                client.send_inside(&client.segment(at, &stream[at..]), way)?;
                client.await_taken(stream.len(), LOSS)?;
            }
            Ok(stream)
        })
    };
    vec![
        inside("from the middle of the token on", middle),
        inside("all of it", |_| 0),
    ]
}

/// Connections that begin while another of the same ends is remembered.
fn ports_used_again() -> Vec<Case> {
    let again = |name: &str, left: &'static str, shift: u32| {
        case(format!("port used again: {name}"), move |client, token| {
            client.connect(FIRST)?;
            client.deliver(0, left.as_bytes())?;
            let mut end = client.bare(left.len());
            end.tcp.rst = true;
            client.send(&end)?;
            thread::sleep(SETTLING);
            let first = FIRST.wrapping_add(pointer(left.len()).into());
            client.connect(first.wrapping_add(shift))?;
            let stream =
                format!("GET /?access_token={token} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
            client.deliver(0, &stream)?;
            // Of both connections.
            Ok([left.as_bytes(), &stream].concat())
        })
    };
    vec![
        again(
            "where it ended, in a value",
            "GET / HTTP/1.1\r\nAuthorization: abc",
            0,
        ),
        again(
            "where it ended, in a line",
            "GET / HTTP/1.1\r\nX-Other: abc",
            0,
        ),
        again("where it ended, in a target", "GET /index", 0),
        again(
            "further on",
            "GET / HTTP/1.1\r\nAuthorization: abc",
            100_000,
        ),
        again(
            "before it ended",
            "GET / HTTP/1.1\r\nAuthorization: abc",
            0_u32.wrapping_sub(10),
        ),
        again(
            "far before",
            "GET / HTTP/1.1\r\nAuthorization: abc",
            0x9000_0000,
        ),
    ]
}

/// Data on the SYN, which the server takes.
pub(super) fn on_the_syn() -> Vec<Case> {
    vec![
        case("SYN: the whole request", |client, token| {
            let stream = request(token);
            client.send_syn(FIRST, &stream)?;
            client.await_handshake()?;
            client.send(&client.bare(stream.len()))?;
            Ok(stream)
        }),
        case("SYN: a part of it", |client, token| {
            let (stream, at) = (request(token), middle(token));
            client.send_syn(FIRST, &stream[..at])?;
            client.await_handshake()?;
            client.deliver(at, &stream[at..])?;
            Ok(stream)
        }),
        case(
            "SYN: after other data on a SYN that the host ignores",
            |client, token| {
                let (stream, at) = (request(token), middle(token));
                let mut decoy = client.segment(0, other(&stream[..at]));
                (decoy.tcp.syn, decoy.tcp.ack, decoy.bad_checksum) = (true, false, true);
                decoy.tcp.sequence_number = FIRST.wrapping_sub(1);
                client.send(&decoy)?;
                for _ in 0..2 {
                    client.send_syn(FIRST, &stream[..at])?;
                    client.listen(SETTLING)?;
                }
                // Without data it gets through.
                client.send_syn(FIRST, b"")?;
                client.await_handshake()?;
                let taken = client.taken();
                client.deliver(taken, &stream[taken..])?;
                Ok(stream)
            },
        ),
    ]
}

/// A server that keeps nothing of a connection before the client's ACK may accept one of several SYNs.
pub(super) fn by_cookie() -> Vec<Case> {
    let earlier = |name: &str, shift: u32| {
        case(
            format!("SYN cookie: an earlier SYN, {name}"),
            move |client, token| {
                client.send_syn(FIRST, b"")?;
                client.await_handshake()?;
                let chosen = client.handshake();
                client.send_syn(FIRST.wrapping_add(shift), b"")?;
                client.await_handshake()?;
                client.resume(chosen);
                let stream = request(token);
                client.deliver(0, &stream)?;
                Ok(stream)
            },
        )
    };
    let kept = |name: &str, shift: u32, left: &'static str| {
        case(
            format!("SYN cookie: kept until another connection ended, {name}"),
            move |client, token| {
                client.send_syn(FIRST.wrapping_add(shift), b"")?;
                client.await_handshake()?;
                let chosen = client.handshake();
                client.connect(FIRST)?;
                client.deliver(0, left.as_bytes())?;
                let mut end = client.bare(left.len());
                end.tcp.rst = true;
                client.send(&end)?;
                thread::sleep(SETTLING);
                client.resume(chosen);
                let stream =
                    format!("GET /?access_token={token} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
                client.deliver(0, &stream)?;
                Ok([left.as_bytes(), &stream].concat())
            },
        )
    };
    let value = "GET / HTTP/1.1\r\nAuthorization: abc";
    vec![
        earlier("before", 100_000),
        earlier("just before", 50),
        earlier("behind", 0_u32.wrapping_sub(100_000)),
        earlier("far", 0x9000_0000),
        kept("before", 0_u32.wrapping_sub(100_000), value),
        kept("where it ended", pointer(value.len()).into(), value),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    [
        decoys(),
        out_of_window(),
        copies(),
        pieces(),
        urgent(),
        ports_used_again(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
