//! The API as it describes itself, and what it refuses.

use serde_json::{Value, json};

use crate::support::{Host, IN_FILE, tokens};

/// Whether the answer is as the description says.
fn assert_described(openapi: &Value, name: &str, answer: &Value) {
    let reference = format!("#/components/schemas/{name}");
    let schema = json!({ "$ref": reference, "components": openapi["components"] });
    let validator = jsonschema::validator_for(&schema).unwrap();
    if let Err(error) = validator.validate(answer) {
        panic!("{name}: {error}: {answer}");
    }
}

#[test]
fn every_answer_is_as_the_api_describes_it() {
    let host = Host::new();
    let _running = host.start(&[]);
    let (status, openapi) = host.curl("/v1/openapi.json", &[]);
    assert_eq!((status, &openapi["openapi"]), (200, &"3.1.0".into()));
    let token = |name: &str| json!({ "entries": [{ "token": name }] }).to_string();
    let full = json!({ "entries": [
        { "token": "full-token-001", "action": "alert", "expires": "90d", "reason": "r", "source": "s" },
        { "token": IN_FILE },
    ] });
    let check = json!({ "tokens": ["full-token-001", IN_FILE, "not-listed-001"] }).to_string();
    for (path, args, code, name) in [
        (
            "/v1/entries",
            &["-d", &full.to_string()][..],
            200,
            "AddAnswer",
        ),
        (
            "/v1/entries",
            &["-d", &token("plain-token-001")],
            200,
            "AddAnswer",
        ),
        ("/v1/entries", &["-d", &token("short")], 422, "Error"),
        ("/v1/entries", &[], 200, "ListAnswer"),
        ("/v1/entries?limit=1", &[], 200, "ListAnswer"),
        ("/v1/check", &["-d", &check], 200, "CheckAnswer"),
        ("/v1/status", &[], 200, "Status"),
        (
            "/v1/entries",
            &["-X", "DELETE", "-d", &token(IN_FILE)],
            200,
            "RemoveAnswer",
        ),
        ("/v1/nothing", &[], 404, "Error"),
        ("/v1/status", &["-d", "{}"], 405, "Error"),
    ] {
        let (status, answer) = host.curl(path, args);
        assert_eq!(status, code, "{path}: {answer}");
        assert_described(&openapi, name, &answer);
    }
    // What is sent is described too.
    assert_described(&openapi, "AddRequest", &full);
    let description = openapi["paths"].as_object().unwrap();
    assert_eq!(description.len(), 4);
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
