//! Finders that send what they found: who they are is checked, and what they send is in force when they are answered.

use std::fs;

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    remote::{Remote, Serving, secret, until},
    support::Host,
};

pub(crate) const GITLAB_TYPE: &str = "gitleaks_rule_id_shop_token";
const GITLAB_CREDENTIAL: &str = "gitlab-credential-0123456789abcdef01";
const KEY_ID: &str = "test-key-of-the-pusher";
const TOKENS: [&str; 2] = ["shop-x8rKq2sT1vYw3zA5bC7d", "shop-Zp4mN7cJ2hG9eD1fB6aL"];

/// GitLab and GitHub.
pub(crate) struct Senders {
    github: EcdsaKeyPair,
}

impl Senders {
    pub(crate) fn new(host: &Host) -> Self {
        let github = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let public = github.public_key().as_der().unwrap();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            BASE64_STANDARD.encode(public.as_ref())
        );
        let keys = json!({ "public_keys": [{ "key_identifier": KEY_ID, "key": pem, "is_current": true }] });
        fs::write(host.path("github.json"), keys.to_string()).unwrap();
        secret(&host.path("gitlab"), GITLAB_CREDENTIAL);
        Self { github }
    }

    pub(crate) const FLAGS: [&str; 3] = [
        "--github-keys=github.json",
        "--gitlab-credential=gitlab",
        "--gitlab-type=gitleaks_rule_id_shop_token",
    ];

    fn signature(&self, body: &str) -> String {
        let signature = self.github.sign(&SystemRandom::new(), body.as_bytes());
        BASE64_STANDARD.encode(signature.unwrap())
    }

    /// As GitHub sends it.
    pub(crate) fn push(&self, to: &Serving, host: &Host, body: &str) -> (u16, Value) {
        push(to, host, body, KEY_ID, &self.signature(body))
    }
}

/// What GitLab asks first.
pub(crate) fn types(to: &Serving, host: &Host) -> (u16, Value) {
    let header = format!("Authorization: {GITLAB_CREDENTIAL}");
    to.bare(host, "/v1/revocable_token_types", &["-H", &header])
}

/// What it sends then.
pub(crate) fn revoked(to: &Serving, host: &Host, body: &str) -> (u16, Value) {
    let header = format!("Authorization: {GITLAB_CREDENTIAL}");
    revoke(to, host, body, &header)
}

fn push(to: &Serving, host: &Host, body: &str, key: &str, signature: &str) -> (u16, Value) {
    let key = format!("Github-Public-Key-Identifier: {key}");
    let signature = format!("Github-Public-Key-Signature: {signature}");
    to.bare(
        host,
        "/v1/github",
        &["-H", &key, "-H", &signature, "-d", body],
    )
}

fn revoke(to: &Serving, host: &Host, body: &str, header: &str) -> (u16, Value) {
    to.bare(host, "/v1/revoke_tokens", &["-H", header, "-d", body])
}

fn counted(host: &Host) -> impl Fn(&str) -> u64 {
    let (_, status) = host.curl("/v1/status", &[]);
    move |name| {
        let counted = &status["tiers"]["counters"]["control"][name];
        counted.as_u64().unwrap_or_else(|| panic!("{name}"))
    }
}

#[test]
fn what_github_signs_is_in_force_when_it_is_answered() {
    let host = Host::new();
    let senders = Senders::new(&host);
    let running = Remote::start(&host, &Senders::FLAGS);
    let body = json!([
        { "token": TOKENS[0], "type": "shop_token", "url": "https://github.example/a/b.txt", "source": "content" },
        { "token": "shop-your-token-here", "type": "shop_token", "url": "", "source": "commit" },
        { "token": "short", "type": "shop_token", "url": "", "source": "commit", "new": 1 },
    ])
    .to_string();
    let (status, answer) = senders.push(&running, &host, &body);
    assert_eq!(status, 200, "{answer}");
    let labels: Vec<_> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|f| &f["label"])
        .collect();
    assert_eq!(labels, ["true_positive", "false_positive"]);
    assert_eq!(answer[0]["token_type"], "shop_token");
    assert!(!answer.to_string().contains(TOKENS[0]));
    assert!(running.blocks(TOKENS[0]));
    let (_, list, _) = host.call(&["deny", "list", "--added"], "");
    assert!(
        list.contains("reason=\"shop_token in https://github.example/a/b.txt\" source=\"github\""),
        "{list}"
    );

    // The same again is no error; another body, key or signature is.
    assert_eq!(senders.push(&running, &host, &body).0, 200);
    let signature = senders.signature(&body);
    let other = body.replace(TOKENS[0], TOKENS[1]);
    let of_other = senders.signature(&other);
    for (body, key, signature) in [
        (&other, KEY_ID, &signature),
        (&body, KEY_ID, &of_other),
        (&other, "another-key", &of_other),
        (&other, KEY_ID, &"AAAA".to_owned()),
    ] {
        let (status, answer) = push(&running, &host, body, key, signature);
        assert_eq!(status, 401, "{answer}");
    }
    assert_eq!(running.bare(&host, "/v1/github", &["-d", &other]).0, 401);
    assert!(!running.blocks(TOKENS[1]));
    let counted = counted(&host);
    assert_eq!(counted("control_refused_signature"), 3);
    assert_eq!(counted("control_refused_signing_key"), 1);
    assert_eq!(counted("control_refused_unsigned"), 1);
    assert_eq!(counted("control_github_tokens_total"), 2);
    assert_eq!(counted("control_received_unfit_total"), 4);

    // A signed body can still be malformed; it isn't repeated.
    let (status, answer) = senders.push(&running, &host, "[{\"token\":\"shop-secret-001\"}]");
    assert!(
        status == 400 && !answer.to_string().contains("secret"),
        "{answer}"
    );
}

#[test]
fn a_key_that_github_has_replaced_signs_nothing_more() {
    let host = Host::new();
    let before = Senders::new(&host);
    let running = Remote::start(&host, &Senders::FLAGS);
    let body = |token: &str| {
        json!([{ "token": token, "type": "shop_token", "url": "", "source": "commit" }]).to_string()
    };
    assert_eq!(before.push(&running, &host, &body(TOKENS[0])).0, 200);
    let after = Senders::new(&host);
    until(
        || after.push(&running, &host, &body(TOKENS[0])).0 == 200,
        "the new key is known",
    );
    assert_eq!(before.push(&running, &host, &body(TOKENS[1])).0, 401);
    // Keys that can't be read leave those in force that were.
    fs::write(host.path("github.json"), "{").unwrap();
    until(
        || running.log().contains("github.json"),
        "the file is refused",
    );
    assert_eq!(before.push(&running, &host, &body(TOKENS[1])).0, 401);
    assert_eq!(after.push(&running, &host, &body(TOKENS[0])).0, 200);
    assert!(running.blocks(TOKENS[0]) && !running.blocks(TOKENS[1]));
}

#[test]
fn of_a_batch_of_gitlab_s_what_can_be_listed_is() {
    let host = Host::new();
    Senders::new(&host);
    let running = Remote::start(&host, &Senders::FLAGS);
    let one = |token: &str| json!({ "type": GITLAB_TYPE, "token": token, "location": "" });
    let batch = [TOKENS[0], "shop-your-token-here", TOKENS[1], TOKENS[0]].map(one);
    let sent = json!(batch).to_string();
    assert_eq!(revoked(&running, &host, &sent), (204, Value::Null));
    assert!(TOKENS.iter().all(|token| running.blocks(token)));
    assert!(!running.blocks("shop-your-token-here"));
    assert_eq!(host.added().len(), 2);
    assert_eq!(counted(&host)("control_received_unfit_total"), 1);
    // None is no error; what is no batch is one, and lists nothing.
    assert_eq!(revoked(&running, &host, "[]"), (204, Value::Null));
    for body in [
        "{}",
        "[[]]",
        r#"[{"token":"shop-other-0001"}]"#,
        "",
        "[{\"type\":1}]",
    ] {
        let (status, answer) = revoked(&running, &host, body);
        assert!(status == 400, "{body}: {status} {answer}");
    }
    assert_eq!(host.added().len(), 2);
}

#[test]
fn what_gitlab_revokes_is_in_force_when_it_is_answered() {
    let host = Host::new();
    Senders::new(&host);
    let running = Remote::start(&host, &Senders::FLAGS);
    assert_eq!(
        types(&running, &host),
        (200, json!({ "types": [GITLAB_TYPE] }))
    );
    let body = |token: &str, kind: &str| {
        json!([{ "type": kind, "token": token, "location": "https://gitlab.example/x.java" }])
            .to_string()
    };
    for (header, name) in [
        ("Authorization:", TOKENS[0]),
        (
            "Authorization: gitlab-credential-0123456789abcdef02",
            TOKENS[0],
        ),
        ("X-Other: gitlab-credential-0123456789abcdef01", TOKENS[0]),
    ] {
        let (status, answer) = revoke(&running, &host, &body(name, GITLAB_TYPE), header);
        assert_eq!(status, 401, "{header}: {answer}");
    }
    // The API's own credential isn't GitLab's, nor the other way round.
    assert_eq!(
        running.fetch(&host, "/v1/revoke_tokens", &["-d", "[]"]).0,
        401
    );
    let header = format!("Authorization: Bearer {GITLAB_CREDENTIAL}");
    assert_eq!(running.fetch(&host, "/v1/status", &["-H", &header]).0, 401);

    let (status, answer) = revoked(&running, &host, &body(TOKENS[1], "other_type"));
    assert!(status == 400 && answer["index"] == 0, "{answer}");
    assert!(host.added().is_empty());
    for _ in 0..2 {
        let revoked = revoked(&running, &host, &body(TOKENS[0], GITLAB_TYPE));
        assert_eq!(revoked, (204, Value::Null));
    }
    assert!(running.blocks(TOKENS[0]) && !running.blocks(TOKENS[1]));
    let (_, list, _) = host.call(&["deny", "list", "--added"], "");
    assert!(
        list.contains("reason=\"gitleaks_rule_id_shop_token in https://gitlab.example/x.java\""),
        "{list}"
    );
    assert_eq!(counted(&host)("control_gitlab_tokens_total"), 2);
}

#[test]
fn gitlab_may_show_its_credential_in_another_header() {
    let host = Host::new();
    Senders::new(&host);
    let flags = [&Senders::FLAGS[..], &["--gitlab-header=X-Token"]].concat();
    let running = Remote::start(&host, &flags);
    let path = "/v1/revocable_token_types";
    let header = format!("X-Token: {GITLAB_CREDENTIAL}");
    assert_eq!(running.bare(&host, path, &["-H", &header]).0, 200);
    assert_eq!(types(&running, &host).0, 401);
}
