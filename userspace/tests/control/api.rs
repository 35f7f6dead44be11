//! The API as it describes itself, and what it refuses.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use serde_json::{Value, json};

use crate::{
    receivers::{GITLAB_TYPE, Senders, revoked, types},
    remote::Remote,
    support::{Host, IN_FILE, tokens},
};

/// The API's own description, and what of it was seen to be true.
struct Description {
    openapi: Value,
    seen: BTreeSet<(String, String)>,
}

impl Description {
    /// Asserts that this answer is described.
    fn assert(&mut self, method: &str, path: &str, (status, answer): &(u16, Value)) {
        let what = format!("{method} {path}: {status} {answer}");
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        let described = &self.openapi["paths"][path][method]["responses"][status.to_string()];
        assert!(described.is_object(), "{what}");
        let schema = &described["content"]["application/json"]["schema"];
        if schema.is_object() {
            self.assert_schema(schema.clone(), answer, &what);
        } else {
            assert!(answer.is_null() || answer["id"].is_string(), "{what}");
        }
        self.seen.insert((path.to_owned(), method.to_owned()));
    }

    /// Asserts that what is sent is as this schema says.
    fn assert_sent(&self, name: &str, request: &Value) {
        let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
        self.assert_schema(reference, request, name);
    }

    fn assert_schema(&self, mut schema: Value, value: &Value, what: &str) {
        schema["components"] = self.openapi["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        if let Err(error) = validator.validate(value) {
            panic!("{what}: {error}");
        }
    }

    /// All that is described.
    fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.openapi["paths"].as_object().unwrap();
        let of_path = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().unwrap().keys();
            methods
                .map(|m| (path.clone(), m.clone()))
                .collect::<Vec<_>>()
        };
        paths.iter().flat_map(of_path).collect()
    }
}

/// Requests that anybody may make who is let in: method, path, body, and the status of the answer.
fn exchanges(full: &Value) -> Vec<(&'static str, &'static str, Option<String>, u16)> {
    let token = |name: &str| json!({ "entries": [{ "token": name }] }).to_string();
    let check = json!({ "tokens": ["full-token-001", IN_FILE, "not-listed-001"] }).to_string();
    vec![
        ("get", "/v1/openapi.json", None, 200),
        ("post", "/v1/entries", Some(full.to_string()), 200),
        ("post", "/v1/entries", Some(token("plain-token-001")), 200),
        ("post", "/v1/entries", Some(token("short")), 422),
        ("post", "/v1/entries", Some("{".to_owned()), 400),
        ("post", "/v1/entries", Some(token("changeme-001")), 422),
        (
            "post",
            "/v1/import",
            Some("listed-token-001\nshort\n".to_owned()),
            200,
        ),
        (
            "post",
            "/v1/import?dry_run=true&force=true",
            Some("changeme-001".to_owned()),
            200,
        ),
        (
            "post",
            "/v1/import",
            Some("listed-token-001 what\n".to_owned()),
            422,
        ),
        ("post", "/v1/import?what=true", Some(String::new()), 400),
        ("get", "/v1/entries", None, 200),
        ("get", "/v1/entries?limit=1", None, 200),
        ("get", "/v1/entries?limit=0", None, 400),
        ("get", "/v1/export?files=false&what=true", None, 400),
        ("post", "/v1/check", Some(check), 200),
        ("get", "/v1/status", None, 200),
        ("delete", "/v1/entries", Some(token(IN_FILE)), 200),
    ]
}

#[test]
fn every_answer_is_as_the_api_describes_it() {
    let host = Host::new();
    let senders = Senders::new(&host);
    let running = Remote::start(&host, &Senders::FLAGS);
    let (status, openapi) = host.curl("/v1/openapi.json", &[]);
    assert_eq!((status, &openapi["openapi"]), (200, &"3.1.0".into()));
    let mut description = Description {
        openapi,
        seen: BTreeSet::new(),
    };
    let full = json!({ "entries": [
        { "token": "full-token-001", "action": "alert", "expires": "90d", "reason": "r", "source": "s" },
        { "token": IN_FILE },
    ] });
    description.assert_sent("AddRequest", &full);
    for (method, path, body, code) in exchanges(&full) {
        let body = body.as_ref();
        let method_flag = method.to_uppercase();
        let mut args = vec!["-X", &method_flag];
        args.extend(
            body.iter()
                .flat_map(|body| ["--data-binary", body.as_str()]),
        );
        // In the same way by both ways.
        for answer in [host.curl(path, &args), running.fetch(&host, path, &args)] {
            assert_eq!(answer.0, code, "{path}: {}", answer.1);
            description.assert(method, path, &answer);
        }
        let mut without = vec!["-H", "Authorization:"];
        without.extend(&args);
        let answer = running.fetch(&host, path, &without);
        assert_eq!(answer.0, 401, "{path}: {}", answer.1);
        description.assert(method, path, &answer);
    }
    assert_eq!(host.curl("/v1/nothing", &[]).0, 404);
    assert_eq!(host.curl("/v1/status", &["-d", "{}"]).0, 405);

    let leaks = json!([{ "token": "tok-5dG2kQ9xZr8wLmNpVb3c", "type": "t", "url": "u", "source": "content" }]);
    description.assert_sent("Leaks", &leaks);
    let pushed = senders.push(&running, &host, &leaks.to_string());
    assert_eq!(pushed.0, 200);
    description.assert("post", "/v1/github", &pushed);
    let found =
        json!([{ "token": "tok-5dG2kQ9xZr8wLmNpVb3d", "type": GITLAB_TYPE, "location": "l" }]);
    description.assert_sent("Revocations", &found);
    for (method, path, answer, code) in [
        (
            "get",
            "/v1/revocable_token_types",
            types(&running, &host),
            200,
        ),
        (
            "post",
            "/v1/revoke_tokens",
            revoked(&running, &host, &found.to_string()),
            204,
        ),
        (
            "post",
            "/v1/revoke_tokens",
            revoked(&running, &host, "{}"),
            400,
        ),
    ] {
        assert_eq!(answer.0, code, "{path}: {}", answer.1);
        description.assert(method, path, &answer);
    }
    let (_, lines, _) = host.call(&["deny", "list", "--json"], "");
    for line in lines.lines() {
        description.assert_sent("Entry", &serde_json::from_str(line).unwrap());
    }
    let exported = (200, Value::Null);
    description.assert("get", "/v1/export", &exported);
    // And nothing is described that isn't there.
    assert_eq!(description.seen, description.operations());
}

#[test]
fn pages_give_every_entry_once() {
    let host = Host::new();
    let _running = host.start(&[]);
    host.add(&tokens("page-token", 25));
    let (mut ids, mut path) = (Vec::new(), "/v1/entries?limit=10".to_owned());
    loop {
        let (status, page) = host.curl(&path, &[]);
        assert_eq!(status, 200);
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.len() <= 10);
        ids.extend(entries.iter().map(|entry| entry["id"].to_string()));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/entries?limit=10&after={next}");
    }
    assert_eq!(ids.len(), 25);
    assert!(ids.is_sorted());
    ids.dedup();
    assert_eq!(ids.len(), 25);
}

#[test]
fn malformed_requests_are_told_what_and_where() {
    let host = Host::new();
    let running = host.start(&[]);
    for (body, part) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        (
            "{\"entries\":[{\"token\":\"secret-token\",\"expire\":\"1d\"}]}",
            "unknown field, expected one of",
        ),
        (
            "{\"entries\":\"secret-token\"}",
            "invalid type, expected a sequence at line 1",
        ),
        (
            "{\"entries\":[{\"token\":\"secret-token\"}]} x",
            "trailing characters at line 1",
        ),
    ] {
        let (status, answer) = host.curl("/v1/entries", &["-d", body]);
        let error = answer["error"].as_str().unwrap();
        assert!(status == 400 && error.contains(part), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    for query in ["limit=0", "limit=x", "after=zz", "colour=red"] {
        let (status, answer) = host.curl(&format!("/v1/entries?{query}"), &[]);
        assert!(
            status == 400 && answer["error"].is_string(),
            "{query}: {answer}"
        );
    }
    // Said to be too long, and refused before it comes.
    let long = [
        "-H",
        "Content-Length: 100000000",
        "-H",
        "Expect:",
        "-d",
        "x",
        "-m",
        "5",
    ];
    let (status, _) = host.curl("/v1/entries", &long);
    assert_eq!(status, 413);
    assert!(running.blocks(IN_FILE) && host.added().is_empty());
}

#[test]
fn who_closes_its_end_after_a_request_gets_the_answer() {
    let host = Host::new();
    let running = host.start(&[]);
    // Long enough to be still at work when the end is seen.
    let list = tokens("half-closed", 200_000);
    let mut stream = UnixStream::connect(host.path("state/control.sock")).unwrap();
    let head = format!(
        "POST /v1/import HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        list.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(list.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"added\":200000"),
        "{answer}"
    );
    assert!(running.blocks("half-closed-00199999"));
}
