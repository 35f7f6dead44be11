//! The control: without the product between them, the origin sees what the client sends.

use std::net::TcpStream;

use tokenblock_tests::{
    certificate::Certificate,
    client::{Answer, Client, curl},
    fixtures::all,
    gate,
    netns::Pair,
    origin::Origin,
    poll,
    program::Program,
};

use crate::lab::{LIMIT, SILENCE};

#[test]
fn every_request_reaches_the_origin() {
    if !gate::namespaces("every_request_reaches_the_origin") {
        return;
    }
    let pair = Pair::new().unwrap();
    let origin = Origin::start(&pair.server, 8080).unwrap();
    for server in pair.server_addresses(origin.port()) {
        for fixture in all() {
            let request = fixture.bytes(Certificate::HOST);
            let mut client = Client::connect(&pair.client, server).unwrap();
            // A line that ends with CR alone never ends for this origin.
            let complete = fixture.line_end != "\r";
            client.send(&request).unwrap();
            let answer = client.answer(if complete { LIMIT } else { SILENCE });
            assert_eq!(
                answer.status(),
                complete.then_some(200),
                "{}: {answer:?}",
                fixture.name
            );
            let seen = || origin.seen_from(client.address().unwrap());
            poll::until(LIMIT, || (seen().len() >= request.len()).then_some(()));
            assert_eq!(seen(), request, "{} from {server}", fixture.name);
        }
    }
}

#[test]
fn a_request_in_pieces_is_one_request() {
    if !gate::namespaces("a_request_in_pieces_is_one_request") {
        return;
    }
    let pair = Pair::new().unwrap();
    let origin = Origin::start(&pair.server, 0).unwrap();
    let [server, _] = pair.server_addresses(origin.port());
    let mut client = Client::connect(&pair.client, server).unwrap();
    for byte in b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n" {
        client.send(&[*byte]).unwrap();
    }
    let requests = origin.wait_for_requests(2, LIMIT);
    let lines: Vec<_> = requests
        .iter()
        .map(|request| request.line.as_str())
        .collect();
    assert_eq!(lines, ["GET /a HTTP/1.1", "GET /b HTTP/1.1"]);
}

#[test]
fn curl_gets_its_answer() {
    if !gate::namespaces("curl_gets_its_answer") {
        return;
    }
    let pair = Pair::new().unwrap();
    let origin = Origin::start(&pair.server, 0).unwrap();
    for server in pair.server_addresses(origin.port()) {
        let (status, body) = curl(&pair.client, &[&format!("http://{server}/x")]).unwrap();
        assert_eq!((status, body.as_str()), (200, "hello"));
    }
    assert_eq!(origin.wait_for_requests(2, LIMIT).len(), 2);
}

#[test]
fn namespaces_leave_nothing_behind() {
    if !gate::namespaces("namespaces_leave_nothing_behind") {
        return;
    }
    let pair = Pair::new().unwrap();
    let names = format!("{pair:?}");
    let origin = Origin::start(&pair.server, 0).unwrap();
    let [server, _] = pair.server_addresses(origin.port());
    let answer = Client::connect(&pair.client, server)
        .unwrap()
        .exchange(b"GET / HTTP/1.1\r\n\r\n", LIMIT)
        .unwrap();
    assert!(
        matches!(answer, Answer::Response { status: 200, .. }),
        "{answer:?}"
    );
    drop((origin, pair));
    let left: Vec<_> = std::fs::read_dir("/run/netns")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| names.contains(&format!("\"{name}\"")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What runs under `timeout` ends with it.
#[test]
fn a_program_ends_with_all_that_it_has_started() {
    if !gate::namespaces("a_program_ends_with_all_that_it_has_started") {
        return;
    }
    let pair = Pair::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [address, _] = pair.server_addresses(8080);
    let mut command = pair.server.command("timeout");
    command.args(["60", "python3", "-m", "http.server", "8080"]);
    let program = Program::serve(&mut command, folder.path(), &pair.server, address).unwrap();
    drop(program);
    let listens = || pair.server.enter(|| TcpStream::connect(address)).unwrap();
    assert!(poll::until(LIMIT, || listens().is_err().then_some(())).is_some());
}
