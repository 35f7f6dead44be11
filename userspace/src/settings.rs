//! The settings, checked: what is here can be meant.

mod error;
mod kernel;
mod locations;
mod policy;
mod proxy;
mod remote;
mod surroundings;

use std::{path::PathBuf, time::Duration};

pub use error::{SettingsError, WrongName};
pub use kernel::{Ban, KernelSettings, Ports};
pub use locations::{Location, Locations};
pub use policy::{PolicyError, REASONS};
pub use surroundings::Surroundings;

use crate::{
    cli::{LogFormat, LogLevel, RunArgs},
    control::ControlSettings,
    kernel::InterceptSettings,
    proxy::ProxySettings,
    sources::{Grammar, Source},
};

/// The settings of `tokenblock run`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The denylist files; at least one.
    pub denylist: Vec<Source>,
    /// Where tokens stand.
    pub locations: Locations,
    /// Entries and candidates shorter than this many bytes don't count.
    pub min_token_length: u64,
    /// How long after its `exp` a JWT leaves the list by itself, where it does.
    pub jwt_expiry: Option<Duration>,
    /// Where the installation key is.
    pub state_dir: PathBuf,
    /// Where changes at run time are asked for.
    pub control: ControlSettings,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// The least severe log lines.
    pub log_level: LogLevel,
    /// The kernel tier, where there is to be one.
    pub kernel: Option<KernelSettings>,
    /// Where programs are kept that outlive the process, also those of a kernel tier that there was.
    pub pin_dir: Option<PathBuf>,
    /// The proxy tier, where there is to be one; one of the two is set.
    pub proxy: Option<ProxySettings>,
    /// The service that it is put before, where it is put before one.
    pub intercept: Option<InterceptSettings>,
}

impl Settings {
    /// Checks what was given.
    ///
    /// # Errors
    /// The first [`SettingsError`].
    pub fn check(args: RunArgs, surroundings: &Surroundings) -> Result<Self, SettingsError> {
        let kernel = kernel::check(&args, surroundings)?;
        let proxy = proxy::check(&args.proxy, args.monitor)?;
        if kernel.is_none() && proxy.is_none() {
            return Err(SettingsError::NoTier);
        }
        let intercept = proxy::intercept(&args.proxy);
        let locations = Locations::check(&args)?;
        let state_dir = args.state_dir.clone().or_else(|| surroundings.state_dir());
        let state_dir = state_dir.ok_or(SettingsError::NoStateDir)?;
        let control = ControlSettings::check(
            args.control_socket.clone(),
            &args.control_mode,
            args.control_group.as_deref(),
            &state_dir,
        )?;
        let control = ControlSettings {
            remote: remote::check(&args)?,
            ..control
        };
        Ok(Self {
            min_token_length: args.min_token_length,
            jwt_expiry: args.jwt_expiry.map(|span| span.0),
            pin_dir: args.pin_dir.clone(),
            state_dir,
            control,
            log_format: args.log_format,
            log_level: args.log_level,
            denylist: sources(args)?,
            locations,
            kernel,
            proxy,
            intercept,
        })
    }
}

fn sources(args: RunArgs) -> Result<Vec<Source>, SettingsError> {
    let entries = args
        .denylist
        .into_iter()
        .map(|path| (path, Grammar::Entries));
    let wallarm =
        given(args.apifw_denylist_tokens_file).map(|path| (path.into(), Grammar::Wallarm));
    let mut sources = Vec::<Source>::new();
    for (path, grammar) in entries.chain(wallarm) {
        if path.as_os_str().is_empty() {
            return Err(SettingsError::Empty("--denylist"));
        }
        let source = Source { path, grammar };
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    if sources.is_empty() {
        return Err(SettingsError::NoDenylist);
    }
    Ok(sources)
}

/// A setting of the API Firewall; charts hand on unset ones as empty.
fn given(setting: Option<String>) -> Option<String> {
    setting.filter(|value| !value.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use tokenblock_ebpf::rules::{MAX_LOCATIONS, MAX_NAME};

    use super::*;
    use crate::cli::{Cli, Command, Direction, OnHit};

    fn surroundings() -> Surroundings {
        Surroundings {
            root: false,
            xdg_state_home: None,
            home: Some("/home/u".into()),
            receive_buffer: Some(6 << 20),
        }
    }

    fn args(flags: &[&str]) -> RunArgs {
        let line = ["tokenblock", "run"]
            .into_iter()
            .chain(flags.iter().copied());
        let Command::Run(args) = Cli::read(line).unwrap().command else {
            panic!("another command");
        };
        *args
    }

    fn check(flags: &[&str]) -> Result<Settings, SettingsError> {
        Settings::check(args(flags), &surroundings())
    }

    const KERNEL: [&str; 2] = ["--denylist=list", "--interface=eth*"];

    fn kernel(flags: &[&str]) -> Result<Settings, SettingsError> {
        check(&[&KERNEL, flags].concat())
    }

    fn names(settings: &Settings) -> Vec<String> {
        settings
            .locations
            .names()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn defaults_protect_the_usual_places() {
        let settings = kernel(&[]).unwrap();
        let names = names(&settings);
        for name in [
            "header authorization",
            "header x-api-key",
            "header sec-websocket-protocol",
            "cookie session",
            "query access_token",
        ] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
        let kernel = settings.kernel.unwrap();
        assert_eq!(kernel.ports.to_string(), "80,8080");
        assert_eq!(kernel.direction, Direction::Ingress);
        assert_eq!(kernel.on_hit, OnHit::Forbid);
        assert_eq!(settings.min_token_length, 8);
        assert_eq!(
            settings.state_dir,
            PathBuf::from("/home/u/.local/state/tokenblock")
        );
        assert!(settings.proxy.is_none() && !kernel.monitor);
    }

    #[test]
    fn the_state_folder_follows_user_and_surroundings() {
        let of = |root, xdg: Option<&str>, home: Option<&str>| {
            let surroundings = Surroundings {
                root,
                xdg_state_home: xdg.map(PathBuf::from),
                home: home.map(PathBuf::from),
                receive_buffer: None,
            };
            surroundings
                .state_dir()
                .map(|folder| folder.display().to_string())
        };
        assert_eq!(
            of(true, Some("/x"), Some("/root")).as_deref(),
            Some("/var/lib/tokenblock")
        );
        assert_eq!(
            of(false, Some("/x"), Some("/h")).as_deref(),
            Some("/x/tokenblock")
        );
        assert_eq!(of(false, None, None), None);
    }

    #[test]
    fn the_proxy_needs_an_upstream_and_both_tls_files() {
        let proxy = |flags: &[&str]| {
            check(
                &[
                    &[
                        "--denylist=list",
                        "--proxy-listen=[::1]:8443",
                        "--upstream=http://a:1",
                    ],
                    flags,
                ]
                .concat(),
            )
        };
        let settings = proxy(&["--tls-cert=c", "--tls-key=k", "--workers=3", "--monitor"]).unwrap();
        let found = settings.proxy.unwrap();
        assert_eq!(found.listen, "[::1]:8443".parse().unwrap());
        assert_eq!((found.workers.get(), found.monitor), (3, true));
        let needed = |needed, by| SettingsError::Needed { needed, by };
        assert_eq!(
            proxy(&["--tls-cert=c"]).unwrap_err(),
            needed("--tls-key", "--tls-cert")
        );
        assert_eq!(
            proxy(&["--tls-key=k"]).unwrap_err(),
            needed("--tls-cert", "--tls-key")
        );
        let error = check(&["--denylist=list", "--proxy-listen=[::1]:1"]).unwrap_err();
        assert_eq!(error, needed("--upstream", "--proxy-listen"));
        assert_eq!(
            kernel(&["--upstream=x"]).unwrap_err(),
            needed("--proxy-listen", "--upstream")
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_eq!(
            check(&["--denylist=list"]).unwrap_err(),
            SettingsError::NoTier
        );
        assert_eq!(
            check(&["--interface=lo"]).unwrap_err(),
            SettingsError::NoDenylist
        );
        for port in ["0", "65536", "http", "-1"] {
            let error = kernel(&[&format!("--port={port}")]).unwrap_err();
            assert_eq!(error, SettingsError::Port(port.to_owned()));
        }
        assert_eq!(
            kernel(&["--port=all,80"]).unwrap_err(),
            SettingsError::PortAllAndMore
        );
        for name in ["", "a b", "a/b", "sixteen-bytes-xx"] {
            let error = kernel(&[&format!("--interface={name}")]).unwrap_err();
            assert_eq!(error, SettingsError::Interface(name.to_owned()));
        }
        let listen =
            check(&["--denylist=l", "--proxy-listen=8443", "--upstream=http://a"]).unwrap_err();
        assert_eq!(listen, SettingsError::Listen("8443".to_owned()));
        let upstream =
            check(&["--denylist=l", "--proxy-listen=[::]:1", "--upstream=a:1"]).unwrap_err();
        assert_eq!(
            upstream.to_string(),
            "--upstream \"a:1\" does not start with http:// or https://"
        );
    }

    #[test]
    fn bodies_are_trusted_after_more_than_buffers_hold() {
        let after = |receive_buffer, flags: &[&str]| {
            let surroundings = Surroundings {
                receive_buffer,
                ..surroundings()
            };
            let settings = Settings::check(args(&[&KERNEL, flags].concat()), &surroundings);
            settings.unwrap().kernel.unwrap().trust_after
        };
        assert_eq!(after(Some(12 << 20), &[]), 20 << 20);
        assert_eq!(after(Some(1 << 20), &[]), 16 << 20);
        assert_eq!(after(Some(1 << 40), &[]), 1 << 30);
        assert_eq!(after(None, &[]), 0);
        assert_eq!(after(None, &["--trust-body-after=1MiB"]), 1 << 20);
        assert_eq!(after(Some(1 << 20), &["--trust-body-after=never"]), 0);
    }

    #[test]
    fn bans_are_off_or_whole() {
        assert_eq!(kernel(&[]).unwrap().kernel.unwrap().ban, None);
        let settings = kernel(&[
            "--ban=5/60/600",
            "--ban-exempt=10.0.0.0/8,::1",
            "--ban-exempt=192.0.2.1",
        ]);
        let ban = settings.unwrap().kernel.unwrap().ban.unwrap();
        let seconds = (ban.window.as_secs(), ban.duration.as_secs());
        assert_eq!((ban.hits.get(), seconds), (5, (60, 600)));
        let exempt: Vec<_> = ban.exempt.iter().map(ToString::to_string).collect();
        assert_eq!(exempt, ["10.0.0.0/8", "::1/128", "192.0.2.1/32"]);
        for text in [
            "",
            "5",
            "5/60",
            "0/1/1",
            "5/60/600/1",
            "a/b/c",
            "5/0/1",
            "5/1/-1",
        ] {
            let error = kernel(&[&format!("--ban={text}")]).unwrap_err();
            assert_eq!(error, SettingsError::Ban(text.to_owned()));
        }
        for wrong in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "fd00::g/16",
            "example.com",
            "/8",
            "",
        ] {
            let flag = format!("--ban-exempt={wrong}");
            let error = kernel(&["--ban=1/1/1", &flag]).unwrap_err().to_string();
            let want = format!("--ban-exempt {wrong:?}: a network reads");
            assert!(error.starts_with(&want), "{error}");
        }
        let needed = SettingsError::Needed {
            needed: "--ban",
            by: "--ban-exempt",
        };
        assert_eq!(kernel(&["--ban-exempt=::1"]).unwrap_err(), needed);
    }

    #[test]
    fn names_are_checked_and_replace_the_defaults() {
        let settings = kernel(&[
            "--header=X-A, X-B",
            "--header=X-A",
            "--cookie=c",
            "--query=q",
        ])
        .unwrap();
        assert_eq!(
            names(&settings),
            ["header x-a", "header x-b", "cookie c", "query q"]
        );
        assert_eq!(
            kernel(&["--header=Cookie"]).unwrap_err(),
            SettingsError::CookieHeader
        );
        for (flag, text) in [
            ("--header=", "header : the name is empty"),
            (
                "--header=a:b",
                "header a:b: the name has a byte 0x3a that can't stand there",
            ),
            (
                "--cookie=a=b",
                "cookie a=b: the name has a byte 0x3d that can't stand there",
            ),
        ] {
            assert_eq!(kernel(&[flag]).unwrap_err().to_string(), text);
        }
        let long = format!("--query={}", "x".repeat(MAX_NAME + 1));
        assert!(
            kernel(&[&long])
                .unwrap_err()
                .to_string()
                .ends_with("longer than 64 bytes")
        );
        let many: Vec<_> = (0..=MAX_LOCATIONS)
            .map(|n| format!("--header=x{n}"))
            .collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(matches!(
            kernel(&many).unwrap_err(),
            SettingsError::TooManyLocations(_)
        ));
    }

    #[test]
    fn the_api_firewalls_settings_add_to_ours() {
        let settings = kernel(&[
            "--apifw-denylist-tokens-file=/old/list",
            "--apifw-denylist-tokens-header-name=X-Old",
            "--apifw-denylist-tokens-cookie-name=old",
            "--apifw-denylist-tokens-trim-bearer-prefix=false",
        ])
        .unwrap();
        let wallarm = Source {
            path: "/old/list".into(),
            grammar: Grammar::Wallarm,
        };
        assert_eq!(settings.denylist.last(), Some(&wallarm));
        let names = names(&settings);
        for name in ["header x-old", "cookie old", "header authorization"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
        let empty = kernel(&[
            "--apifw-denylist-tokens-file=",
            "--apifw-denylist-tokens-header-name=",
        ]);
        assert_eq!(empty.unwrap().denylist.len(), 1);
    }
}
