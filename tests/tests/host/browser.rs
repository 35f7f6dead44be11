//! A browser before each tier: what its user sees of a page, and of a refusal.

use std::{net::SocketAddr, path::PathBuf};

use tempfile::TempDir;
use tokenblock_tests::{
    certificate::Certificate,
    fixtures::{OPAQUE, Token},
    gate,
    netns::Netns,
    poll,
    product::Event,
};

use crate::lab::{Bench, LIMIT, Lab, Tier};

/// Debian's Chromium without a window.
const CHROMIUM: &str = "chromium-headless-shell";
/// What a refusal shows.
const REFUSAL: &str = "{\"error\":\"listed_token\"}";
/// Its script asks for another page as its fragment says, which is sent to nobody: with a cookie or a header field. It
/// notes what it got, and by which version of HTTP it came here itself.
const PAGE: &str = r#"<!doctype html><title>page</title><p id="said">nothing</p><script>
const [kind, value] = location.hash.slice(1).split(":");
if (kind == "cookie") document.cookie = "session=" + value;
function ask(path, token) {
  const request = new XMLHttpRequest();
  request.open("GET", path, false);
  if (token) request.setRequestHeader("Authorization", "Bearer " + token);
  try {
    request.send();
    return request.status + " " + request.responseText.trim();
  } catch (error) {
    return error.name;
  }
}
const first = ask("/first", kind == "header" && value);
document.cookie = "session=; max-age=0";
const second = ask("/second");
const version = performance.getEntriesByType("navigation")[0].nextHopProtocol;
said.textContent = [version, first, second].join(", ");
</script>"#;

/// The browser, with a profile of its own.
struct Browser {
    program: PathBuf,
    folder: TempDir,
    more: Vec<String>,
}

impl Browser {
    fn new(program: PathBuf, more: Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            program,
            folder,
            more,
        }
    }

    /// The page at `url` once its scripts have run; the browser's complaint where there is none.
    fn page(&self, netns: &Netns, url: &str) -> String {
        let folder = self.folder.path();
        let output = netns
            .command("timeout")
            .arg("60")
            .arg(&self.program)
            // It won't run as root with its sandbox.
            .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-proxy-server", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", folder.display()))
            .args(&self.more)
            .args(["--dump-dom", url])
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .output()
            .unwrap();
        let shown = if output.status.success() {
            output.stdout
        } else {
            output.stderr
        };
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// What the script on the page says, where the browser shows it.
    fn script(&self, netns: &Netns, url: &str) -> String {
        let page = self.page(netns, url);
        let said = page.split_once("<p id=\"said\">");
        let said = said.and_then(|(_, rest)| rest.split_once("</p>"));
        said.map_or_else(|| panic!("{url}: {page}"), |(said, _)| said.to_owned())
    }
}

/// Shows pages at `site`: clean, and with listed tokens at each place where a browser can be made to send them.
fn check(lab: &Lab, browser: &Browser, site: &str, version: &str, refused: &Seen) {
    let (netns, origin) = (&lab.bench.pair.client, &lab.bench.origin);
    origin.put("/", PAGE);
    origin.forget();
    let clean = "a-token-of-some-other-length";
    for kind in ["cookie", "header"] {
        let said = browser.script(netns, &format!("{site}/#{kind}:{clean}"));
        assert_eq!(said, format!("{version}, 200 hello, 200 hello"), "{site}");
        assert!(origin.saw(clean.as_bytes()), "{site}: {kind}");
        origin.forget();
        let said = browser.script(netns, &format!("{site}/#{kind}:{OPAQUE}"));
        let (script, log) = (&refused.script, lab.product.log());
        let expected = format!("{version}, {script}, 200 hello");
        assert_eq!(said, expected, "{site} {kind}\n{log}");
        let requests = origin.wait_for_requests(2, LIMIT);
        let lines: Vec<_> = requests
            .iter()
            .map(|request| request.line.as_str())
            .collect();
        assert_eq!(lines, ["GET / HTTP/1.1", "GET /second HTTP/1.1"], "{site}");
        origin.forget();
    }
    let page = browser.page(netns, &format!("{site}/?access_token={clean}"));
    assert!(page.contains("<title>page</title>"), "{site}: {page}");
    origin.forget();
    let page = browser.page(netns, &format!("{site}/?access_token={OPAQUE}"));
    assert!(page.contains(&refused.page), "{site}: {page}");
    assert_eq!(origin.connections().len(), 0, "{site}");
    for location in [
        "cookie session",
        "header authorization",
        "query access_token",
    ] {
        let is_it =
            |event: &Event| event.token == Token::Opaque.short_id() && event.location == location;
        let seen = || lab.product.events().iter().any(is_it).then_some(());
        let log = || lab.product.log();
        assert!(
            poll::until(LIMIT, seen).is_some(),
            "{site}: {location}\n{}",
            log()
        );
    }
}

/// What a refusal looks like: to a script, and as a page.
struct Seen {
    script: String,
    page: String,
}

impl Seen {
    fn forbidden() -> Self {
        Self {
            script: format!("403 {REFUSAL}"),
            page: REFUSAL.to_owned(),
        }
    }

    fn reset() -> Self {
        Self {
            script: "NetworkError".to_owned(),
            page: "ERR_CONNECTION_RESET".to_owned(),
        }
    }
}

#[test]
fn chromium_shows_what_the_kernel_answers() {
    let test = "browser::chromium_shows_what_the_kernel_answers";
    let (Some(binary), Some(program)) = (gate::product(test), gate::program(test, CHROMIUM)) else {
        return;
    };
    for (on_hit, refused) in [("forbid", Seen::forbidden()), ("reset", Seen::reset())] {
        let lab = Bench::new(binary.clone()).start(Tier::Kernel, &["--on-hit", on_hit]);
        for server in lab.servers() {
            let browser = Browser::new(program.clone(), Vec::new());
            check(
                &lab,
                &browser,
                &format!("http://{server}"),
                "http/1.1",
                &refused,
            );
        }
    }
}

#[test]
fn chromium_shows_what_the_proxy_answers() {
    let test = "browser::chromium_shows_what_the_proxy_answers";
    let (Some(binary), Some(program)) = (gate::product(test), gate::program(test, CHROMIUM)) else {
        return;
    };
    let lab = Lab::new(binary, Tier::Proxy);
    for server in lab.servers() {
        let ip = match server {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        let host = Certificate::HOST;
        let pin = lab.bench.certificate.key_pin();
        let browser = Browser::new(
            program.clone(),
            vec![
                format!("--host-resolver-rules=MAP {host} {ip}"),
                format!("--ignore-certificate-errors-spki-list={pin}"),
            ],
        );
        let site = format!("https://{host}:{}", server.port());
        check(&lab, &browser, &site, "h2", &Seen::forbidden());
    }
}
