//! Uploads and downloads over paths that lose and reorder: bodies come through whole.

use std::{path::PathBuf, time::Duration};

use tokenblock_tests::{
    bodies::{Body, Framing},
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

/// Sends a body in both framings, which must arrive whole.
fn upload(lab: &Lab, client: &mut Client, name: &str, body: &[u8]) {
    for framing in [Framing::Declared, Framing::Chunked] {
        let name = format!("{name}, {framing:?}");
        let answer = client.exchange(&framing.request(body), PATIENCE).unwrap();
        assert_eq!(answer.status(), Some(200), "{name}: {answer:?}");
        let requests = lab.bench.origin.wait_for_requests(1, PATIENCE);
        let first = requests.first();
        assert!(first.is_some_and(|request| request.body == *body), "{name}");
        lab.bench.origin.forget();
    }
}

/// Uploads on one connection, then downloads on it.
fn check(lab: &Lab, path: Path) {
    let [server, _] = lab.servers();
    let mut client = Client::connect(&lab.bench.pair.client, server).unwrap();
    for body in [Body::Binary, Body::Text, Body::Json] {
        upload(
            lab,
            &mut client,
            &format!("{path:?}, {body:?}"),
            &body.bytes(BODY),
        );
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
