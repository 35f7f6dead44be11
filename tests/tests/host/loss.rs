//! Uploads and downloads over paths that lose and reorder: binary bodies come through whole.

use std::{path::PathBuf, time::Duration};

use tokenblock_tests::{
    certificate::Certificate,
    client::{Answer, Client},
    fixtures::binary,
    gate,
    relay::{Path, Relay},
};

use crate::lab::{Bench, Lab, Tier};

/// How long one exchange may take on such a path.
const PATIENCE: Duration = Duration::from_mins(1);
const BODY: usize = 256 * 1024;

const PATHS: [Path; 3] = [path(1, 0), path(5, 0), path(0, 25)];

const fn path(lost: u64, early: u64) -> Path {
    Path {
        lost,
        early,
        delay: Duration::from_millis(2),
    }
}

fn head(length: usize) -> String {
    let host = Certificate::HOST;
    format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n")
}

/// A body in chunks of 4 KiB (RFC 9112 section 7.1).
fn chunked(body: &[u8]) -> Vec<u8> {
    let host = Certificate::HOST;
    let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut bytes = head.into_bytes();
    for chunk in body.chunks(4096) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Uploads on one connection, then downloads on it.
fn check(lab: &Lab, path: Path) {
    let [server, _] = lab.servers();
    let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
    let body = binary(BODY);
    let plain = [head(body.len()).as_bytes(), &body].concat();
    for (framing, upload) in [("declared", plain), ("chunked", chunked(&body))] {
        let name = format!("{path:?}: {framing}");
        let answer = client.exchange(&upload, PATIENCE).unwrap();
        assert_eq!(answer.status(), Some(200), "{name}: {answer:?}");
        let requests = lab.bench.origin.wait_for_requests(1, PATIENCE);
        let first = requests.first();
        assert!(first.is_some_and(|request| request.body == body), "{name}");
        lab.bench.origin.forget();
    }
    let get = format!(
        "GET /bytes/{BODY} HTTP/1.1\r\nHost: {}\r\n\r\n",
        Certificate::HOST
    );
    let answer = client.exchange(get.as_bytes(), PATIENCE).unwrap();
    let whole = matches!(&answer, Answer::Response { body, .. } if *body == binary(BODY));
    assert!(whole, "{path:?}: download");
    for counter in ["blocked", "gap_conflict"] {
        assert_eq!(
            lab.product.kernel_counter(counter).unwrap(),
            0,
            "{path:?}: {counter}"
        );
    }
}

fn lab(binary: PathBuf, relay: Relay) -> Lab {
    Bench::between(relay, binary).start(Tier::Kernel, &[])
}

#[test]
fn bodies_come_through_loss_and_reordering() {
    let Some(binary) = gate::product("loss::bodies_come_through_loss_and_reordering") else {
        return;
    };
    for path in PATHS {
        check(&lab(binary.clone(), Relay::new(path).unwrap()), path);
    }
}
