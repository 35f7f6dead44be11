//! The settings of the proxy tier, checked.

use std::net::Ipv6Addr;

use http::{HeaderValue, StatusCode, uri::Authority};

use super::{SettingsError, kernel::network};
use crate::{
    cli::proxy::{
        InterceptFail, LimitArgs, ProxyArgs, RefusalArgs, TimeoutArgs, TlsArgs, UpstreamArgs,
    },
    kernel::InterceptSettings,
    proxy::{
        CheckSettings, HealthSettings, Limits, Listen, ProxySettings, Refusal, Timeouts, TlsFiles,
        Upstream, UpstreamTlsSettings,
    },
};

/// Checks what was given; none where there is to be no proxy.
pub(super) fn check(
    args: &ProxyArgs,
    monitor: bool,
) -> Result<Option<ProxySettings>, SettingsError> {
    let listen = match (&args.proxy_listen, &args.intercept[..]) {
        (None, []) => return needless(args),
        (None, [_, ..]) => Listen::Intercepted,
        (Some(text), ports) => listen(text, !ports.is_empty())?,
    };
    let tls = pair(
        (args.tls.tls_cert.as_ref(), "--tls-cert"),
        (args.tls.tls_key.as_ref(), "--tls-key"),
    )?;
    if tls.is_none() {
        without_certificate(&args.tls)?;
    }
    let mut upstreams = urls(&args.upstreams.upstream)?;
    let mut by_port = Vec::new();
    if upstreams.is_empty() {
        by_port = services(args, tls.is_some())?;
        let first = by_port.first().map(|(_, service)| service.clone());
        upstreams.extend(first);
    }
    if by_port.len() == 1 {
        // It is asked for everything.
        by_port.clear();
    }
    let Some((upstream, more_upstreams)) = upstreams.split_first() else {
        return Err(needed("--upstream", "--proxy-listen"));
    };
    let defaults = ProxySettings::new(listen, upstream.clone());
    Ok(Some(ProxySettings {
        takeover: args.proxy_takeover,
        proxy_protocol_from: networks("--proxy-protocol-from", &args.proxy_protocol_from)?,
        trusted_proxies: networks("--trusted-proxy", &args.trusted_proxy)?,
        tls,
        more_certificates: certificates(&args.tls.certificate)?,
        tls_min_version: args.tls.tls_min_version,
        client_ca: args.tls.tls_client_ca.clone(),
        more_upstreams: more_upstreams.to_vec(),
        routes: args
            .upstreams
            .route
            .iter()
            .map(|route| route.trim().parse())
            .collect::<Result<_, _>>()?,
        by_port,
        balance: args.upstreams.balance,
        health: HealthSettings {
            failures: args.upstreams.upstream_failures,
            eject: args.upstreams.upstream_eject.0,
        },
        check: check_of(&args.upstreams)?,
        upstream_http: args.upstreams.upstream_http,
        upstream_tls: upstream_tls(&args.upstreams)?,
        upstream_preamble: args.upstreams.upstream_proxy_protocol,
        workers: args.workers.unwrap_or(defaults.workers),
        monitor,
        refusal: refusal(&args.refusal)?,
        timeouts: timeouts(&args.timeouts),
        limits: limits(&args.limits, &args.upstreams),
        ..defaults
    }))
}

/// The interception of a service's connections, where there is to be one.
pub(super) fn intercept(args: &ProxyArgs) -> Option<InterceptSettings> {
    let pins = args.intercept_pin.clone();
    let closed = args.intercept_fail == InterceptFail::Closed;
    let ports = ports(args);
    (!ports.is_empty()).then(|| InterceptSettings {
        ports,
        closed: closed.then(|| pins.clone()),
        pins,
    })
}

/// The intercepted ports, each once.
fn ports(args: &ProxyArgs) -> Vec<u16> {
    let mut ports = args.intercept.clone();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The services behind them.
fn services(args: &ProxyArgs, tls: bool) -> Result<Vec<(u16, Upstream)>, SettingsError> {
    let scheme = if tls { "https" } else { "http" };
    let service = |port| Ok((port, format!("{scheme}://localhost:{port}").parse()?));
    ports(args).into_iter().map(service).collect()
}

/// An address. What is intercepted comes over both families, which only a socket for all addresses takes.
fn listen(text: &str, intercepts: bool) -> Result<Listen, SettingsError> {
    let listen = text
        .parse()
        .map_err(|_no_address| SettingsError::Listen(text.to_owned()))?;
    match listen {
        Listen::Address(at) if !intercepts || at.ip() == Ipv6Addr::UNSPECIFIED => Ok(listen),
        Listen::Passed if !intercepts => Ok(listen),
        Listen::Address(_) | Listen::Passed | Listen::Intercepted => {
            Err(SettingsError::InterceptListen(text.to_owned()))
        }
    }
}

fn needed(needed: &'static str, by: &'static str) -> SettingsError {
    SettingsError::Needed { needed, by }
}

/// Without an address, nothing that only a proxy uses can be meant.
fn needless(args: &ProxyArgs) -> Result<Option<ProxySettings>, SettingsError> {
    let given = [
        (!args.upstreams.upstream.is_empty(), "--upstream"),
        (!args.upstreams.route.is_empty(), "--route"),
        (args.tls.tls_cert.is_some(), "--tls-cert"),
        (args.tls.tls_key.is_some(), "--tls-key"),
    ];
    match given.into_iter().find(|(given, _)| *given) {
        Some((_, by)) => Err(needed("--proxy-listen", by)),
        None => Ok(None),
    }
}

/// Without a certificate there are no handshakes that the other settings of TLS could be for.
fn without_certificate(args: &TlsArgs) -> Result<(), SettingsError> {
    let given = [
        (!args.certificate.is_empty(), "--certificate"),
        (args.tls_client_ca.is_some(), "--tls-client-ca"),
    ];
    match given.into_iter().find(|(given, _)| *given) {
        Some((_, by)) => Err(needed("--tls-cert", by)),
        None => Ok(()),
    }
}

type Given<'a, T> = (Option<&'a T>, &'static str);

/// A certificate and its key, both or none.
fn pair(
    (cert, cert_flag): Given<'_, std::path::PathBuf>,
    (key, key_flag): Given<'_, std::path::PathBuf>,
) -> Result<Option<TlsFiles>, SettingsError> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(needed(key_flag, cert_flag)),
        (None, Some(_)) => Err(needed(cert_flag, key_flag)),
    }
}

fn certificates(given: &[String]) -> Result<Vec<TlsFiles>, SettingsError> {
    let files = |text: &String| {
        let parts: Vec<&str> = text.split(':').map(str::trim).collect();
        match parts[..] {
            [cert, key] if !cert.is_empty() && !key.is_empty() => Ok(TlsFiles {
                cert: cert.into(),
                key: key.into(),
            }),
            _ => Err(SettingsError::Certificate(text.clone())),
        }
    };
    given.iter().map(files).collect()
}

fn urls(given: &[String]) -> Result<Vec<Upstream>, SettingsError> {
    let urls = given.iter().map(|url| url.trim().parse());
    Ok(urls.collect::<Result<_, _>>()?)
}

fn networks(flag: &'static str, given: &[String]) -> Result<Vec<ipnet::IpNet>, SettingsError> {
    given.iter().map(|text| network(flag, text)).collect()
}

/// How servers are checked, where they are.
fn check_of(args: &UpstreamArgs) -> Result<Option<CheckSettings>, SettingsError> {
    let Some(path) = args.upstream_check.clone() else {
        return match args.upstream_check_host {
            Some(_) => Err(needed("--upstream-check", "--upstream-check-host")),
            None => Ok(None),
        };
    };
    if !path.as_str().starts_with('/') {
        return Err(SettingsError::CheckPath(path.to_string()));
    }
    if let Some(host) = &args.upstream_check_host
        && host.parse::<Authority>().is_err()
    {
        return Err(SettingsError::CheckHost(host.clone()));
    }
    Ok(Some(CheckSettings {
        path,
        host: args.upstream_check_host.clone(),
        interval: args.upstream_check_interval.0,
        timeout: args.upstream_check_timeout.0,
        failures: args.upstream_check_failures,
        passes: args.upstream_check_passes,
    }))
}

fn upstream_tls(args: &UpstreamArgs) -> Result<UpstreamTlsSettings, SettingsError> {
    Ok(UpstreamTlsSettings {
        ca: args.upstream_ca.clone(),
        server_name: args.upstream_server_name.clone(),
        client: pair(
            (args.upstream_cert.as_ref(), "--upstream-cert"),
            (args.upstream_key.as_ref(), "--upstream-key"),
        )?,
    })
}

fn refusal(args: &RefusalArgs) -> Result<Refusal, SettingsError> {
    let defaults = Refusal::default();
    let content_type = match &args.refusal_content_type {
        Some(text) => HeaderValue::from_str(text)
            .map_err(|_invalid| SettingsError::ContentType(text.clone()))?,
        None => defaults.content_type,
    };
    let status = args.refusal_status.map(StatusCode::from_u16);
    Ok(Refusal {
        // The range that clap allows is one of codes.
        status: status.and_then(Result::ok).unwrap_or(defaults.status),
        content_type,
        body: match &args.refusal_body {
            Some(text) => text.clone().into(),
            None => defaults.body,
        },
    })
}

fn timeouts(args: &TimeoutArgs) -> Timeouts {
    Timeouts {
        handshake: args.timeout_handshake.0,
        header: args.timeout_header.0,
        body: args.timeout_body.0,
        write: args.timeout_write.0,
        idle: args.timeout_idle.0,
        upstream_connect: args.timeout_connect.0,
        upstream_response: args.timeout_response.0,
        upstream_continue: args.timeout_continue.0,
        upstream_idle: args.timeout_upstream_idle.0,
        upstream_age: args.timeout_upstream_age.0,
        tunnel: args.timeout_tunnel.0,
        drain: args.timeout_drain.0,
    }
}

fn limits(args: &LimitArgs, upstreams: &UpstreamArgs) -> Limits {
    Limits {
        connections: args.limit_connections,
        connections_per_source: args.limit_connections_per_source,
        requests_per_connection: args.limit_requests,
        http2_streams: args.limit_streams,
        http2_resets: args.limit_resets,
        http2_stream_errors: args.limit_stream_errors,
        http2_control_frames: args.limit_control_frames,
        header_bytes: args.limit_header_bytes,
        header_fields: args.limit_header_fields,
        discard_bytes: args.limit_discard_bytes,
        upstream_streams: upstreams.upstream_streams,
        body_rate: args.limit_body_rate,
        form_bytes: args.limit_form_bytes,
        upstream_idle: upstreams.upstream_keep,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_in_result, reason = "the result is what is tested")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        proxy: ProxyArgs,
    }

    fn given(flags: &[&str]) -> Result<Option<ProxySettings>, SettingsError> {
        let line = std::iter::once("x").chain(flags.iter().copied());
        check(&Line::try_parse_from(line).unwrap().proxy, false)
    }

    const NEEDED: [&str; 4] = [
        "--proxy-listen=[::1]:1",
        "--upstream=http://a",
        "--tls-cert=c",
        "--tls-key=k",
    ];

    fn with(flags: &[&str]) -> Result<ProxySettings, SettingsError> {
        given(&[&NEEDED, flags].concat()).map(Option::unwrap)
    }

    /// All of it as text; to compare what has no equality.
    fn shown(settings: &ProxySettings) -> String {
        format!("{settings:#?}")
    }

    #[test]
    fn the_defaults_are_those_of_the_proxy() {
        let listen = Listen::Address("[::1]:1".parse().unwrap());
        let mut expected = ProxySettings::new(listen, "http://a".parse().unwrap());
        expected.tls = Some(TlsFiles {
            cert: "c".into(),
            key: "k".into(),
        });
        assert_eq!(shown(&with(&[]).unwrap()), shown(&expected));
    }

    /// Each setting changes something, and nothing is left at its default that a setting names.
    #[test]
    fn every_setting_arrives() {
        let plain = shown(&with(&[]).unwrap());
        for (flag, line) in [
            ("--proxy-takeover", "takeover: true"),
            ("--workers=77", "workers: 77"),
            ("--certificate=d:e", "cert: \"d\""),
            ("--tls-min-version=1.3", "tls_min_version: Tls13"),
            ("--tls-client-ca=f", "\"f\""),
            ("--upstream=https://b,unix:/s", "\"/s\""),
            (
                "--route=h.example/p=http://b,http://c;/q=http://d",
                "path: \"/q\"",
            ),
            ("--balance=round-robin", "balance: RoundRobin"),
            ("--upstream-http=2", "upstream_http: Http2"),
            ("--upstream-proxy-protocol=v2", "upstream_preamble: V2"),
            ("--upstream-ca=g", "\"g\""),
            ("--upstream-server-name=n", "\"n\""),
            ("--upstream-failures=9", "failures: 9"),
            ("--upstream-eject=9m", "eject: 540s"),
            ("--upstream-keep=9", "upstream_idle: 9"),
            ("--upstream-streams=9", "upstream_streams: 9"),
            ("--refusal-status=418", "status: 418"),
            ("--refusal-content-type=a/b", "\"a/b\""),
            ("--refusal-body=no", "body: b\"no\""),
            ("--timeout-handshake=9s", "handshake: 9s"),
            ("--timeout-header=9s", "header: 9s"),
            ("--timeout-body=9s", "body: 9s"),
            ("--timeout-write=9s", "write: 9s"),
            ("--timeout-idle=9s", "idle: 9s"),
            ("--timeout-connect=9s", "upstream_connect: 9s"),
            ("--timeout-response=9s", "upstream_response: 9s"),
            ("--timeout-continue=9s", "upstream_continue: 9s"),
            ("--timeout-upstream-idle=9s", "upstream_idle: 9s"),
            ("--timeout-upstream-age=9s", "upstream_age: 9s"),
            ("--timeout-tunnel=9s", "tunnel: 9s"),
            ("--limit-body-rate=9", "body_rate: 9"),
            ("--timeout-drain=9s", "drain: 9s"),
            ("--limit-connections=9", "connections: 9"),
            (
                "--limit-connections-per-source=9",
                "connections_per_source: 9",
            ),
            ("--limit-requests=9", "requests_per_connection: Some"),
            ("--limit-streams=9", "http2_streams: 9"),
            ("--limit-resets=9", "http2_resets: 9"),
            ("--limit-stream-errors=9", "http2_stream_errors: 9"),
            ("--limit-control-frames=9", "http2_control_frames: 9"),
            ("--limit-header-bytes=9", "header_bytes: 9"),
            ("--limit-header-fields=9", "header_fields: 9"),
            ("--limit-discard-bytes=9", "discard_bytes: 9"),
            ("--limit-form-bytes=9", "form_bytes: 9"),
            ("--proxy-protocol-from=192.0.2.0/24", "192.0.2.0/24"),
            ("--trusted-proxy=192.0.2.9", "192.0.2.9/32"),
        ] {
            let found = shown(&with(&[flag]).unwrap());
            assert!(
                found.contains(line) && !plain.contains(line),
                "{flag}: {found}"
            );
        }
        for (flag, line) in [
            ("--upstream-check-host=h:1", "\"h:1\""),
            ("--upstream-check-interval=9s", "interval: 9s"),
            ("--upstream-check-timeout=9s", "timeout: 9s"),
            ("--upstream-check-failures=9", "failures: 9"),
            ("--upstream-check-passes=9", "passes: 9"),
        ] {
            let with = |more: &[&str]| {
                let flags = [&["--upstream-check=/up?a"], more].concat();
                shown(&with(&flags).unwrap())
            };
            let (plain, found) = (with(&[]), with(&[flag]));
            assert!(plain.contains("path: /up?a"), "{plain}");
            assert!(
                found.contains(line) && !plain.contains(line),
                "{flag}: {found}"
            );
        }
        let client = shown(&with(&["--upstream-cert=d", "--upstream-key=e"]).unwrap());
        assert!(
            client.contains("\"d\"") && client.contains("\"e\""),
            "{client}"
        );
    }

    #[test]
    fn an_intercepted_service_is_the_upstream_where_none_is_given() {
        let tls = ["--intercept=443", "--tls-cert=c", "--tls-key=k"];
        let settings = given(&tls).unwrap().unwrap();
        assert_eq!(settings.listen, Listen::Intercepted);
        assert_eq!(settings.upstream.to_string(), "https://localhost");
        let settings = given(&["--intercept=80", "--proxy-listen=[::]:1"]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.upstream.to_string(), "http://localhost");
        let several = |flags: &[&str]| {
            let settings = given(flags).unwrap().unwrap();
            let services = settings.by_port.iter();
            let services: Vec<_> = services.map(|(port, to)| format!("{port} {to}")).collect();
            (settings.upstream.to_string(), services)
        };
        let (first, services) = several(&["--intercept=8080,80", "--intercept=80"]);
        assert_eq!(first, "http://localhost");
        assert_eq!(
            services,
            ["80 http://localhost", "8080 http://localhost:8080"]
        );
        let (first, services) = several(&["--intercept=1,2", "--upstream=http://a"]);
        assert_eq!((&*first, services), ("http://a", Vec::new()));
        let settings = given(&["--intercept=80", "--upstream=http://192.0.2.1:80"]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.upstream.to_string(), "http://192.0.2.1");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (flag, part) in [
            (
                "--upstream-cert=c",
                "--upstream-key is needed with --upstream-cert",
            ),
            (
                "--upstream-check=*",
                "--upstream-check \"*\": a path begins",
            ),
            (
                "--upstream-check-host=a",
                "--upstream-check is needed with --upstream-check-host",
            ),
            ("--route=a", "--route \"a\" is no route"),
            (
                "--certificate=a",
                "--certificate \"a\": a certificate and its key read CERT:KEY",
            ),
            ("--certificate=a:b:c", "CERT:KEY"),
            ("--refusal-content-type=a\nb", "--refusal-content-type"),
            (
                "--trusted-proxy=10.0.0.0/33",
                "--trusted-proxy \"10.0.0.0/33\": a network",
            ),
            (
                "--proxy-protocol-from=x",
                "--proxy-protocol-from \"x\": a network",
            ),
        ] {
            let error = with(&[flag]).unwrap_err().to_string();
            assert!(error.contains(part), "{flag}: {error}");
        }
        let plain = ["--proxy-listen=[::1]:1", "--upstream=http://a"];
        for (flag, by) in [
            ("--certificate=a:b", "--certificate"),
            ("--tls-client-ca=a", "--tls-client-ca"),
        ] {
            let error = given(&[&plain[..], &[flag]].concat()).unwrap_err();
            assert_eq!(error, needed("--tls-cert", by));
        }
        let error = given(&["--route=/a=http://b"]).unwrap_err();
        assert_eq!(error, needed("--proxy-listen", "--route"));
        for listen in ["[::1]:1", "0.0.0.0:1", "systemd"] {
            let error = given(&[&format!("--proxy-listen={listen}"), "--intercept=443"]);
            let expected = SettingsError::InterceptListen(listen.to_owned());
            assert_eq!(error.unwrap_err(), expected);
        }
        let passed = given(&["--proxy-listen=systemd", "--upstream=http://a"]);
        assert_eq!(passed.unwrap().unwrap().listen, Listen::Passed);
    }
}
