//! Entries that name claims of JWTs: by file, API and command, at each place, with the life of any other entry.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::support::{Host, IN_FILE, Running};

fn jwt(header: &str, payload: &str) -> String {
    let encode = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
    format!("{}.{}.c2lnbmF0dXJl", encode(header), encode(payload))
}

/// Of this user, issued at this second, signed with this key.
fn issued(sub: &str, kid: &str, iat: u64) -> String {
    let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
    let payload = format!(r#"{{"iss":"https://idp.example","sub":"{sub}","iat":{iat}}}"#);
    jwt(&header, &payload)
}

fn blocks(running: &Running, request: &str) -> bool {
    running.status_of(request) == 403
}

#[test]
fn a_family_of_jwts_is_blocked_by_a_line_of_a_file_wherever_tokens_stand() {
    let host = Host::new();
    let list = format!(
        "{IN_FILE}\njwt:kid=leaked-key reason=\"a key in a repo\"\n\
         jwt:iss=https://idp.example jwt:sub=\"alice\" before=1970-01-01T00:16:40Z\n\
         jwt:sub=mallory action=alert\n"
    );
    fs::write(host.path("list"), list).unwrap();
    let running = host.start(&[]);
    let leaked = issued("bob", "leaked-key", 5000);
    let other = issued("bob", "other-key", 5000);
    assert!(running.blocks(IN_FILE) && running.blocks(&leaked) && !running.blocks(&other));
    assert!(running.blocks(&issued("alice", "other-key", 999)));
    assert!(!running.blocks(&issued("alice", "other-key", 1000)));
    assert!(!running.blocks(&issued("mallory", "other-key", 999)));
    for (blocked, request) in [
        (
            true,
            format!("GET /?a=b&access_token={leaked} HTTP/1.1\r\nHost: a\r\n"),
        ),
        (
            true,
            format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; session={leaked}\r\n"),
        ),
        (
            true,
            format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {leaked}\r\n"),
        ),
        (
            false,
            format!("GET / HTTP/1.1\r\nHost: a\r\nX-Other: {leaked}\r\n"),
        ),
        (
            false,
            format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a={leaked}\r\n"),
        ),
        (false, format!("GET /?a={leaked} HTTP/1.1\r\nHost: a\r\n")),
        (
            false,
            format!("GET /?access_token={other} HTTP/1.1\r\nHost: a\r\n"),
        ),
    ] {
        assert_eq!(blocks(&running, &request), blocked, "{request}");
    }
    // What was seen is of the entry, and says by which line.
    let (_, out, _) = host.call(&["deny", "check", "--json"], "jwt:kid=leaked-key");
    let checked: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&checked["listed"], &checked["seen"]["hits"]),
        (&true.into(), &4.into())
    );
    assert_eq!(
        (
            &checked["files"][0]["jwt"],
            &checked["files"][0]["file"]["line"]
        ),
        (&"kid".into(), &2.into())
    );
    let (code, out, _) = host.call(&["status"], "");
    assert!(
        code == 0 && out.contains("proxy tier alone enforces: 3\n"),
        "{out}"
    );
    let (_, out, _) = host.call(&["deny", "list"], "");
    assert!(out.contains(" jwt=sub,iss,before file=list:3"), "{out}");
    let (_, out, _) = host.call(&["deny", "export"], "");
    assert_eq!(
        out.lines().filter(|line| line.starts_with("# ")).count(),
        3,
        "{out}"
    );

    fs::write(host.path("list"), format!("{IN_FILE}\n")).unwrap();
    while running.blocks(&leaked) {}
    assert!(running.blocks(IN_FILE));
}

#[test]
fn conditions_that_are_added_live_as_other_entries_do() {
    let host = Host::new();
    let mut running = host.start(&[]);
    let leaked = issued("bob", "leaked-key", 5000);
    assert!(!running.blocks(&leaked));
    let add = ["deny", "add", "--reason=a key in a repo"];
    let (code, out, error) = host.call(&add, "jwt:kid=leaked-key\n");
    assert!(code == 0 && out.starts_with("added "), "{out} {error}");
    assert!(running.blocks(&leaked));
    let (_, out, _) = host.call(&["deny", "add"], "jwt:kid=leaked-key");
    assert!(out.starts_with("unchanged "), "{out}");
    running.kill();
    let running = host.start(&[]);
    assert!(running.blocks(&leaked));
    let (_, out, _) = host.call(&["deny", "list", "--added"], "");
    assert!(out.contains(" jwt=kid reason=\"a key in a repo\""), "{out}");

    // In a list, with other entries, and until a time.
    let list =
        "listed-token-0001\njwt:sub=alice jwt:iss=https://idp.example expires=4s reason=breach\n";
    let (code, out, error) = host.call(&["deny", "import", "--list", "-"], list);
    assert!(code == 0 && out.starts_with("2 added"), "{out} {error}");
    let alice = issued("alice", "other-key", 1);
    assert!(running.blocks(&alice) && running.blocks("listed-token-0001"));
    while running.blocks(&alice) {}
    let (code, out, _) = host.call(&["deny", "remove"], "jwt:kid=leaked-key");
    assert!(code == 0 && out.ends_with(" removed\n"), "{out}");
    assert!(!running.blocks(&leaked) && running.blocks("listed-token-0001"));

    // Neither state nor answers hold a value.
    for file in fs::read_dir(host.path("state")).unwrap() {
        let Ok(bytes) = fs::read(file.unwrap().path()) else {
            continue;
        };
        for value in [&b"leaked-key"[..], b"idp.example"] {
            assert!(!bytes.windows(value.len()).any(|part| part == value));
        }
    }
}

/// An upstream that answers each request once its body is there.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            // The client names no length, so that the body ends with an empty chunk.
            while !request.ends_with(b"0\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => break,
                    Ok(n) => request.extend_from_slice(&piece[..n]),
                }
            }
            // Nobody waits for the answer to a request that was refused.
            let _answered = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    address
}

/// The status of the answer to a form that comes in these pieces.
fn status_of_form(running: &Running, pieces: &[&[u8]]) -> u16 {
    let mut client = TcpStream::connect(running.proxy).unwrap();
    client.set_nodelay(true).unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    for piece in pieces {
        // A refusal may come before all is sent.
        let _sent = client
            .write_all(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    let _sent = client.write_all(b"0\r\n\r\n");
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

#[test]
fn claims_are_read_in_forms_however_those_are_cut() {
    let host = Host::new();
    fs::write(
        host.path("list"),
        format!("{IN_FILE}\njwt:kid=leaked-key\n"),
    )
    .unwrap();
    let mut flags = Host::RUN.to_vec();
    let to = format!("--upstream=http://{}", upstream());
    flags.retain(|flag| !flag.starts_with("--upstream"));
    flags.extend([to.as_str(), "--limit-form-bytes=200000"]);
    let running = Host::started(host.tokenblock(&flags));
    let leaked = issued("bob", "leaked-key", 5000);
    let other = issued("bob", "other-key", 5000);
    let encoded = leaked.replace('.', "%2E");
    for (blocked, form) in [
        (true, format!("access_token={leaked}")),
        (true, format!("a=b&access%5Ftoken={encoded}&c=d")),
        (false, format!("a=b&access_token={other}&c=d")),
        (false, format!("other={leaked}&access_token={other}")),
        // Longer than any parameter that is looked through; what stands behind it is.
        (
            false,
            format!("access_token={}{leaked}", "x".repeat(70_000)),
        ),
        (
            true,
            format!("a={}&access_token={leaked}", "x".repeat(70_000)),
        ),
    ] {
        let due = if blocked { 403 } else { 200 };
        let shown = form.get(..60).unwrap_or(&form);
        assert_eq!(status_of_form(&running, &[form.as_bytes()]), due, "{shown}");
        let (one, rest) = form.as_bytes().split_at(form.len() / 2);
        let (two, three) = rest.split_at(rest.len() / 2);
        let pieces = [one, two, three];
        assert_eq!(status_of_form(&running, &pieces), due, "{shown}, cut");
    }
}

#[test]
fn what_can_not_be_meant_is_refused() {
    let host = Host::new();
    let running = host.start(&[]);
    for (line, part) in [
        ("jwt:", "jwt: takes kid="),
        ("jwt:kid=", "jwt: takes kid="),
        ("jwt:name=secret", "jwt: takes kid="),
        ("jwt:kid=\"secret", "jwt: takes kid="),
        ("jwt:kid=secret jwt:kid=secret", "kid= is given twice"),
        ("jwt:kid=secret before=yesterday", "before= takes a time"),
        ("jwt:kid=secret kind=jws", "kind= belongs to sha256:"),
        (
            "secret-token-01 before=2027-01-31T12:00:00Z",
            "before= belongs to jwt:",
        ),
    ] {
        let (code, _, error) = host.call(&["deny", "import", "--list", "-"], line);
        assert!(code == 65 && error.contains(part), "{line}: {error}");
        assert!(!error.contains("secret"), "{error}");
        let (code, _, error) = host.call(&["deny", "add"], line);
        assert!(code == 65 && !error.contains("secret"), "{line}: {error}");
    }
    assert!(running.blocks(IN_FILE) && host.added().is_empty());
}
