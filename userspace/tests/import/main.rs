//! `tokenblock import` as its users start it: one report of each finder, and what comes of it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails fails the test that calls it"
)]

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use clap::ValueEnum as _;
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use sha2::{Digest as _, Sha256};
use tokenblock::import::{Format, detect, findings};

const STRIPE: &str = "sk_live_Qm7tLr2VxNe9JhKd4PwZ";
const GITHUB: &str = "ghp_Rk83hWm0SxYtQbVz51LnEaCu27DfGj94PoIK";
const NPM: &str = "npm_h4Gd82KsLqWx0ZtYv6RbNcMj1PfEoAu35TiV";

fn report(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/import")
        .join(name)
}

fn import(arguments: &[&str], reports: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tokenblock"))
        .arg("import")
        .args(arguments)
        .args(reports.iter().map(|name| report(name)))
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The tokens of the list that comes of a report, and the counts.
fn imported(reports: &[&str]) -> (Vec<String>, String) {
    let output = import(&[], reports);
    let counts = text(&output.stderr);
    assert!(output.status.success(), "{reports:?}: {counts}");
    let list = text(&output.stdout);
    let token = |line: &str| line.split(' ').next().unwrap().to_owned();
    (list.lines().map(token).collect(), counts)
}

#[test]
fn each_report_gives_its_tokens_and_nothing_else() {
    let basic = "Nc4xZ2qL8tRw7HvK";
    let jwt =
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzaG9wLTQxIn0.m4Qz8Lr1Xt6Vb0Nc5Kd9Hs2Jw7Gf3PyEaUiOoRkTvZx";
    for (name, tokens, refused) in [
        (
            "gitleaks.json",
            &[STRIPE][..],
            "2 refused (1 redacted, 1 a placeholder)",
        ),
        ("gitleaks.csv", &[STRIPE], "1 refused (1 no single word)"),
        ("gitleaks.sarif", &[STRIPE], ""),
        (
            "trufflehog.jsonl",
            &[
                GITHUB,
                "AKIAT3WQ7ZKD5NVRHXLM",
                "wJq8Zt2Lx0Vb7Rn5Ks3Hd1Gf9Mc6Yp4TaEuXiQo",
            ],
            "",
        ),
        (
            "github.json",
            &[GITHUB],
            "2 refused (1 the report holds no secret, 1 resolved as a false positive)",
        ),
        (
            "gitlab.json",
            &["glpat-vT5nXc8QeLw2RkZs9HbJ"],
            "1 refused (1 the report holds no secret)",
        ),
        (
            "ggshield.json",
            &["SG.pLm4Xv9QzRk2Tn7W.bYc8Hs3Jd6Fg1Ke5Ao0UiEtNwVrMxSqZlDfGhJy"],
            "1 refused (1 redacted)",
        ),
        ("kingfisher.jsonl", &[NPM], "1 refused (1 redacted)"),
        ("kingfisher.json", &[NPM], ""),
        (
            "postman_collection.json",
            &[
                "Hx9Qv2Lm7Tz4Kd8Rw1Nb",
                jwt,
                "pk7Wq2Zt9Lm4Xr8Vn1Bc6",
                "qT6yLw3Rz8Nx1Kv5Hb0D",
                basic,
            ],
            "1 refused (1 a placeholder)",
        ),
        (
            "postman_environment.json",
            &["uR3kYx8Wq1Zn6Tb5Lv0C", "Jd7Pf2Sg9Ah4Lk1Mz6Xe"],
            "",
        ),
        (
            "session.har",
            &[
                "Zs8Gm3Kp1Xw6Qv9Rt4Lb",
                "Fy2Jn7Hc5Td0We9Ua4Si",
                "Ob6Ix1Em8Rk3Pz7Vl2Qg",
                "Vb3Nw+Kx8Zq1Rt6Ly0Hd5",
                "Cw5Dq0!Fy7Nh2Zs9Kt",
            ],
            "1 found more than once",
        ),
        (
            "shop.env",
            &[STRIPE, "w8Hq3Zn6Lt1Xv5Kb9Rc2"],
            "1 refused (1 a placeholder)",
        ),
    ] {
        let (found, counts) = imported(&[name]);
        assert_eq!(found, tokens, "{name}");
        assert!(counts.contains(refused), "{name}: {counts}");
        if refused.is_empty() {
            assert!(!counts.contains("refused"), "{name}: {counts}");
        }
    }
}

#[test]
fn of_several_reports_each_token_is_listed_once_with_all_its_finders() {
    let output = import(
        &[],
        &[
            "gitleaks.json",
            "shop.env",
            "trufflehog.jsonl",
            "github.json",
        ],
    );
    let list = text(&output.stdout);
    let line = list.lines().find(|line| line.starts_with(STRIPE)).unwrap();
    assert_eq!(
        line,
        format!(
            "{STRIPE} reason=\"stripe-access-token in config/payment.toml:12\" source=\"gitleaks,env\""
        )
    );
    assert_eq!(list.matches(GITHUB).count(), 1);
    assert!(
        text(&output.stderr).starts_with("5 added, 2 found more than once"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_dry_run_shows_where_and_never_what() {
    let output = import(
        &["--dry-run"],
        &["gitleaks.json", "trufflehog.jsonl", "shop.env"],
    );
    let shown = text(&output.stdout);
    let id = sha256(STRIPE);
    assert!(
        shown.contains(&format!(
            "add\t{id}\tgitleaks,env\tstripe-access-token\tconfig/payment.toml:12\n"
        )),
        "{shown}"
    );
    assert!(
        shown.contains("refuse\tredacted\tgitleaks\tgeneric-api-key\t"),
        "{shown}"
    );
    assert!(shown.contains("shop.env: line 5"), "{shown}");
    for token in [STRIPE, GITHUB, "changeme", "w8Hq3Zn6"] {
        assert!(
            !shown.contains(token) && !text(&output.stderr).contains(token),
            "{shown}"
        );
    }
    assert!(text(&output.stderr).contains("would be added"));
}

fn sha256(token: &str) -> String {
    let digest = Sha256::digest(token);
    format!("{digest:x}").chars().take(12).collect()
}

#[test]
fn a_list_of_hashes_holds_no_token() {
    let output = import(&["--hashed"], &["gitleaks.json", "postman_collection.json"]);
    let list = text(&output.stdout);
    assert!(
        list.starts_with(&format!(
            "sha256:{:x} kind=exact reason=\"stripe-access-token in config/payment.toml:12\"",
            Sha256::digest(STRIPE)
        )),
        "{list}"
    );
    assert_eq!(list.matches(" kind=jws ").count(), 1, "{list}");
    assert!(!list.contains(STRIPE) && !list.contains("eyJ"), "{list}");
}

#[test]
fn placeholders_are_listed_where_that_is_forced_and_redacted_values_never() {
    let output = import(&["--force"], &["gitleaks.json"]);
    let list = text(&output.stdout);
    assert!(list.contains("changeme-please "), "{list}");
    assert!(!list.contains("REDACTED"), "{list}");
}

#[test]
fn the_list_is_a_file_of_its_owner_and_replaces_what_was_there_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("found.list");
    fs::write(&list, "old").unwrap();
    let output = import(&["--output", list.to_str().unwrap()], &["gitleaks.json"]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(
        fs::metadata(&list).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(fs::read_to_string(&list).unwrap().starts_with(STRIPE));

    // What goes wrong leaves it as it is.
    let other = folder.path().join("broken.json");
    fs::write(
        &other,
        "[{\"RuleID\":\"x\",\"Secret\":\"y\"},{\"RuleID\":1}]",
    )
    .unwrap();
    let output = import(
        &["--output", list.to_str().unwrap(), other.to_str().unwrap()],
        &["gitleaks.json"],
    );
    assert_eq!(output.status.code(), Some(65));
    assert!(fs::read_to_string(&list).unwrap().starts_with(STRIPE));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_malformed_report_imports_nothing_and_names_the_place_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report");
    let path_text = path.to_str().unwrap();
    let har = format!("{{\"log\":{{\"entries\":[\n{{\"request\":\"{STRIPE}\"}}]}}}}");
    let row = format!("RuleID,Secret,File\nx,{STRIPE}\n");
    let lines = format!(
        "{{\"DetectorName\":\"x\",\"Raw\":\"{STRIPE}\"}}\n{{\"DetectorName\":\"x\",\"Raw\":[\"{STRIPE}\"]}}\n"
    );
    for (contents, message) in [
        (format!("[{{\"RuleID\":\"x\",\"Secret\":\"{STRIPE}\"}}"), ": ends in the middle of a value"),
        (format!("[{{\"RuleID\" \"{STRIPE}\"}}]"), ": line 1, column 12: no JSON"),
        (har, ": line 2, column "),
        (row, ": line 2: not as gitleaks-csv writes it"),
        (lines, ": line 2, column 26: not as trufflehog writes it"),
        (format!("A={STRIPE}\n{STRIPE}\n"), ": is no report of a known kind"),
        (format!("{{\"secret\":\"{STRIPE}\"}}"), ": is no report of a known kind"),
        (
            "{\"version\":\"2.1.0\",\"runs\":[{\"tool\":{\"driver\":{\"name\":\"other\"}},\"results\":[]}]}".to_owned(),
            ": a SARIF report of another tool",
        ),
    ] {
        fs::write(&path, &contents).unwrap();
        let output = import(&[path_text], &["gitleaks.json"]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{contents}: {error}");
        assert!(output.stdout.is_empty(), "{contents}");
        assert!(error.contains(&format!("{path_text}{message}")), "{message}: {error}");
        assert!(!error.contains(STRIPE), "{error}");
    }
    let missing = import(&["/none/report"], &[]);
    assert_eq!(missing.status.code(), Some(66));
}

/// A download that broke off, a byte that was flipped: an answer, and none that shows a token.
#[test]
fn reports_that_are_cut_or_damaged_are_answered() {
    for file in fs::read_dir(report("")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            continue;
        }
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            for contents in [&whole[..at], &damaged] {
                for format in Format::value_variants() {
                    if let Err(error) = detect(contents).and_then(|_| findings(*format, contents)) {
                        assert!(!error.to_string().contains("Qm7t"), "{error}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_found_nothing_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report");
    for contents in [
        "",
        "\n",
        "[]\n",
        "{\"vulnerabilities\":[]}",
        "{\"findings\":[]}",
    ] {
        fs::write(&path, contents).unwrap();
        let output = import(&[path.to_str().unwrap()], &[]);
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{contents}"
        );
        assert!(text(&output.stderr).starts_with("0 added"), "{contents}");
    }
}

#[test]
fn no_token_is_shown_on_a_terminal_unless_asked_for() {
    let outcome = |arguments: &[&str]| {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let terminal = openpt(flags).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tokenblock"))
            .arg("import")
            .args(arguments)
            .arg(report("gitleaks.json"))
            .stdout(
                OpenOptions::new()
                    .write(true)
                    .open(name.to_str().unwrap())
                    .unwrap(),
            )
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        output.status.code()
    };
    assert_eq!(outcome(&[]), Some(64));
    assert_eq!(outcome(&["--show"]), Some(0));
    assert_eq!(outcome(&["--hashed"]), Some(0));
    assert_eq!(outcome(&["--dry-run"]), Some(0));
}

#[test]
fn a_report_comes_from_standard_input_too() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tokenblock"))
        .args(["import", "--format=env", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(format!("MY_TOKEN={STRIPE}").as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(text(&output.stdout).starts_with(STRIPE));
}
