//! The settings, checked: what is here can be meant.

mod policy;
mod proxy;
mod remote;

use std::{
    env,
    fmt::{self, Display},
    fs,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use tokenblock_ebpf::{
    digest::InstallationKey,
    location::{LocationId, LocationKind},
    rules::{MAX_LOCATIONS, MAX_NAME, NO_LOCATION, Rules, RulesError},
    verdict::Policies,
};

pub use policy::{PolicyError, REASONS};

use crate::{
    cli::{Attach, Direction, LogFormat, LogLevel, OnHit, RunArgs, Xdp, units::Trust},
    control::{ControlSettings, ControlSettingsError},
    kernel::InterceptSettings,
    places::Places,
    proxy::{ProxySettings, RouteError, UpstreamError},
    sources::{Grammar, Source},
};

/// Most names that ids are kept for.
const MAX_IDS: usize = 0xf000;

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
    /// The proxy tier, where there is to be one; one of the two is set.
    pub proxy: Option<ProxySettings>,
    /// The service that it is put before, where it is put before one.
    pub intercept: Option<InterceptSettings>,
}

/// What the kernel tier protects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSettings {
    /// Names or globs of interfaces; at least one.
    pub interfaces: Vec<String>,
    /// Which way the packets go that are read.
    pub direction: Direction,
    /// The servers' TCP ports.
    pub ports: Ports,
    /// Report listed tokens, and let them pass.
    pub monitor: bool,
    /// What is done when a request is blocked.
    pub on_hit: OnHit,
    /// Most flows that are followed at once.
    pub flows: u32,
    /// Bytes of a declared body that a server must take without a word before the rest is passed unread; 0: never.
    pub trust_after: u32,
    /// What becomes of packets that can't be judged.
    pub policies: Policies,
    /// How the TC programs are attached.
    pub attach: Attach,
    /// How the XDP program is attached.
    pub xdp: Xdp,
    /// When a source is banned, where any can be.
    pub ban: Option<Ban>,
}

/// When a source is banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Blocked requests that it takes.
    pub hits: NonZeroU32,
    /// In which they must fall.
    pub window: Duration,
    /// For how long it is banned.
    pub duration: Duration,
    /// Networks that are never banned.
    pub exempt: Vec<IpNet>,
}

/// TCP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every one.
    All,
    /// These, ascending; at least one.
    Only(Vec<NonZeroU16>),
}

/// Where tokens stand; a location's id is its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locations(Vec<Location>);

/// One place where a token can stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What has the name.
    pub kind: LocationKind,
    /// The name, as given.
    pub name: String,
}

/// Why settings can't be meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Nothing would be enforced anywhere.
    #[error(
        "no tier: give --interface NAME for cleartext HTTP on that interface, --proxy-listen ADDR:PORT for \
         HTTPS, or both"
    )]
    NoTier,
    /// Nothing would be enforced.
    #[error("no denylist: give --denylist FILE, a file of compromised tokens, one a line")]
    NoDenylist,
    /// A setting is needed by another.
    #[error("{needed} is needed with {by}")]
    Needed {
        /// What is missing.
        needed: &'static str,
        /// What needs it.
        by: &'static str,
    },
    /// A value is empty.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Not a port.
    #[error("--port {0:?}: a port is a number from 1 to 65535, or `all`")]
    Port(String),
    /// `all` with numbers.
    #[error("--port all takes every port; leave out the others")]
    PortAllAndMore,
    /// Not a policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Not a rule for bans.
    #[error(
        "--ban {0:?}: N/T/D reads, for instance, 5/60/600: after 5 blocked requests within 60 seconds, for 600 \
         seconds"
    )]
    Ban(String),
    /// Not a network.
    #[error("{flag} {text:?}: a network reads 10.0.0.0/8 or 2001:db8::/32, an address 10.0.0.1")]
    Network {
        /// The setting.
        flag: &'static str,
        /// As given.
        text: String,
    },
    /// Not an interface.
    #[error(
        "--interface {0:?}: an interface has no blanks and no `/` in its name, and at most 15 bytes"
    )]
    Interface(String),
    /// Not an address.
    #[error(
        "--proxy-listen {0:?}: an address to listen on reads 0.0.0.0:8443 or [::]:8443; `systemd` takes the \
         socket of a service manager"
    )]
    Listen(String),
    /// Not an address.
    #[error("--control-listen {0:?}: an address to listen on reads 127.0.0.1:8444 or [::]:8444")]
    ControlListen(String),
    /// Not a header.
    #[error("--gitlab-header {0:?}: no header can be called so")]
    GitlabHeader(String),
    /// Not for both families.
    #[error(
        "--proxy-listen {0:?} can't take what --intercept hands over, IPv4 and IPv6: leave it out, or give [::]:PORT"
    )]
    InterceptListen(String),
    /// Not an upstream.
    #[error("--upstream {0}")]
    Upstream(#[from] UpstreamError),
    /// Not a route.
    #[error("--route {0}")]
    Route(#[from] RouteError),
    /// Not a path.
    #[error("--upstream-check {0:?}: a path begins with `/`")]
    CheckPath(String),
    /// Not a host.
    #[error("--upstream-check-host {0:?}: a host reads example.org or example.org:8080")]
    CheckHost(String),
    /// Not a certificate with its key.
    #[error("--certificate {0:?}: a certificate and its key read CERT:KEY, two paths without `:`")]
    Certificate(String),
    /// Not the value of a header field.
    #[error("--refusal-content-type {0:?} can't be the value of a header field")]
    ContentType(String),
    /// The header of cookies is no location of its own.
    #[error("--header Cookie: cookies are read one by one; give their names with --cookie NAME")]
    CookieHeader,
    /// No location at all.
    #[error("no place to look: give at least one --header, --cookie or --query")]
    NoLocation,
    /// Too many locations.
    #[error(
        "{0} headers, cookies and query parameters are more than the {MAX_LOCATIONS} that can be read"
    )]
    TooManyLocations(usize),
    /// A name that can't be one of its kind.
    #[error("{location}: {why}")]
    Name {
        /// The location.
        location: Location,
        /// What is wrong with its name.
        why: WrongName,
    },
    /// There is no place for state.
    #[error("no folder for the installation key: HOME is not set; give --state-dir DIR")]
    NoStateDir,
    /// Nobody could control it so.
    #[error(transparent)]
    Control(#[from] ControlSettingsError),
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongName {
    /// It is empty.
    #[error("the name is empty")]
    Empty,
    /// It is too long.
    #[error("the name is longer than {MAX_NAME} bytes")]
    TooLong,
    /// It has a byte that never stands in such a name.
    #[error("the name has a byte {0:#04x} that can't stand there")]
    Byte(u8),
    /// The hash table has no room for it.
    #[error("the name clashes with the others; leave one out")]
    Clash,
}

/// What defaults depend on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Whether the process runs as root.
    pub root: bool,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// The largest receive buffer that a socket of this host may have, in bytes.
    pub receive_buffer: Option<u64>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let folder = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            root: rustix::process::geteuid().is_root(),
            xdg_state_home: folder("XDG_STATE_HOME"),
            home: folder("HOME"),
            receive_buffer: receive_buffer(),
        }
    }

    /// The usual state folder, where there is one.
    #[must_use]
    pub fn state_dir(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/var/lib/tokenblock"));
        }
        let state = match (&self.xdg_state_home, &self.home) {
            (Some(folder), _) => folder.clone(),
            (None, Some(home)) => home.join(".local/state"),
            (None, None) => return None,
        };
        Some(state.join("tokenblock"))
    }
}

/// The largest receive buffer that TCP makes by itself, or an application may ask for (tcp(7), socket(7)).
fn receive_buffer() -> Option<u64> {
    let last_of = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(Path::new("/proc/sys/net").join(name)).ok()?;
        text.split_whitespace().last()?.parse().ok()
    };
    // What is asked for is doubled.
    let asked = last_of("core/rmem_max")?.saturating_mul(2);
    last_of("ipv4/tcp_rmem").map(|own| own.max(asked))
}

impl Surroundings {
    /// When a declared body is trusted where nothing is said: when the server's application has read as much as its
    /// socket can hold besides.
    fn trust(&self) -> Trust {
        const TIMES: u64 = 2;
        const LEAST: u64 = 16 << 20;
        self.receive_buffer.map_or(Trust::NEVER, |buffer| {
            Trust::after(buffer.saturating_mul(TIMES).max(LEAST))
        })
    }
}

impl Settings {
    /// Checks what was given.
    ///
    /// # Errors
    /// The first [`SettingsError`].
    pub fn check(args: RunArgs, surroundings: &Surroundings) -> Result<Self, SettingsError> {
        let kernel = kernel(&args, surroundings)?;
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

fn kernel(
    args: &RunArgs,
    surroundings: &Surroundings,
) -> Result<Option<KernelSettings>, SettingsError> {
    const LONGEST: usize = 15; // IFNAMSIZ, less the final NUL
    if args.interface.is_empty() {
        return Ok(None);
    }
    for name in &args.interface {
        let is_glob = name.contains(['*', '?', '[']);
        let is_name = !name.is_empty() && !name.contains(|c: char| c == '/' || c.is_whitespace());
        if !is_name || (name.len() > LONGEST && !is_glob) {
            return Err(SettingsError::Interface(name.clone()));
        }
    }
    Ok(Some(KernelSettings {
        interfaces: args.interface.clone(),
        direction: args.direction,
        ports: Ports::check(&args.port)?,
        monitor: args.monitor,
        on_hit: args.on_hit,
        flows: args.max_flows,
        trust_after: args
            .trust_body_after
            .unwrap_or_else(|| surroundings.trust())
            .0,
        policies: policy::check(&args.policy)?,
        attach: args.attach,
        xdp: args.xdp,
        ban: Ban::check(args)?,
    }))
}

impl Ban {
    fn check(args: &RunArgs) -> Result<Option<Self>, SettingsError> {
        let Some(text) = &args.ban else {
            return if args.ban_exempt.is_empty() {
                Ok(None)
            } else {
                Err(SettingsError::Needed {
                    needed: "--ban",
                    by: "--ban-exempt",
                })
            };
        };
        let wrong = || SettingsError::Ban(text.clone());
        let parts: Vec<NonZeroU32> = text
            .split('/')
            .map(|part| part.trim().parse().map_err(|_no_number| wrong()))
            .collect::<Result<_, _>>()?;
        let [hits, window, duration] = parts[..] else {
            return Err(wrong());
        };
        let seconds = |n: NonZeroU32| Duration::from_secs(n.get().into());
        Ok(Some(Self {
            hits,
            window: seconds(window),
            duration: seconds(duration),
            exempt: args
                .ban_exempt
                .iter()
                .map(|text| network("--ban-exempt", text))
                .collect::<Result<_, _>>()?,
        }))
    }
}

/// A network, or a single address.
fn network(flag: &'static str, text: &str) -> Result<IpNet, SettingsError> {
    let text = text.trim();
    text.parse()
        .or_else(|_no_network| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_no_address| SettingsError::Network {
            flag,
            text: text.to_owned(),
        })
}

impl Ports {
    fn check(given: &[String]) -> Result<Self, SettingsError> {
        let is_all = |text: &String| text.eq_ignore_ascii_case("all");
        match given {
            [] => return Err(SettingsError::Empty("--port")),
            [one] if is_all(one) => return Ok(Self::All),
            several if several.iter().any(is_all) => return Err(SettingsError::PortAllAndMore),
            _ => {}
        }
        let port = |text: &String| {
            text.trim()
                .parse()
                .map_err(|_no_port| SettingsError::Port(text.clone()))
        };
        let mut ports = given.iter().map(port).collect::<Result<Vec<_>, _>>()?;
        ports.sort_unstable();
        ports.dedup();
        Ok(Self::Only(ports))
    }
}

impl Locations {
    fn check(args: &RunArgs) -> Result<Self, SettingsError> {
        let header = given(args.apifw_denylist_tokens_header_name.clone());
        let cookie = given(args.apifw_denylist_tokens_cookie_name.clone());
        let of_kind = |kind| {
            move |name: &String| Location {
                kind,
                name: name.trim().to_owned(),
            }
        };
        let headers = args
            .header
            .iter()
            .chain(&header)
            .map(of_kind(LocationKind::Header));
        let cookies = args
            .cookie
            .iter()
            .chain(&cookie)
            .map(of_kind(LocationKind::Cookie));
        let queries = args.query.iter().map(of_kind(LocationKind::Query));
        let mut locations = Vec::new();
        for location in headers.chain(cookies).chain(queries) {
            if location.kind == LocationKind::Header && location.name.eq_ignore_ascii_case("cookie")
            {
                return Err(SettingsError::CookieHeader);
            }
            if !locations.contains(&location) {
                locations.push(location);
            }
        }
        if locations.is_empty() {
            return Err(SettingsError::NoLocation);
        }
        let locations = Self(locations);
        // The names are checked where they are used; the key doesn't matter to them.
        locations.places(&[], &InstallationKey([0; 16]), args.min_token_length)?;
        Ok(locations)
    }

    /// The rules by which both tiers find these locations, and their names. `known` has the names by the ids that they have had
    /// so far; they keep them, so that these places can take the place of others while tokenblock runs.
    ///
    /// # Errors
    /// Where there are too many, or a name can't be one of its kind; not for checked settings.
    pub fn places(
        &self,
        known: &[Arc<str>],
        key: &InstallationKey,
        min_token_length: u64,
    ) -> Result<Places, SettingsError> {
        let mut names = if known.len() < MAX_IDS {
            known.to_vec()
        } else {
            // An event of the moment may get a wrong name, after a thousand changes of all names.
            Vec::new()
        };
        let ids: Vec<LocationId> = self
            .names()
            .iter()
            .map(|name| {
                let index = names.iter().position(|known| known == name);
                if index.is_none() {
                    names.push(Arc::clone(name));
                }
                LocationId::try_from(index.unwrap_or(names.len() - 1)).unwrap_or(NO_LOCATION)
            })
            .collect();
        let locations: Vec<_> = self.0.iter().map(|l| (l.kind, l.name.as_bytes())).collect();
        let id = |index| ids.get(index).copied().unwrap_or(NO_LOCATION);
        let rules = Rules::numbered(key, min_token_length, &locations, id);
        Ok(Places {
            rules: Arc::new(rules.map_err(|error| self.explain(error))?),
            locations: names.into(),
        })
    }

    fn explain(&self, error: RulesError) -> SettingsError {
        let (index, why) = match error {
            RulesError::TooMany => return SettingsError::TooManyLocations(self.0.len()),
            RulesError::TooLong(index) => (index, WrongName::TooLong),
            RulesError::Empty(index) => (index, WrongName::Empty),
            RulesError::BadByte(index, byte) => (index, WrongName::Byte(byte)),
            RulesError::NoSeed => (self.0.len() - 1, WrongName::Clash),
        };
        match self.0.get(index) {
            Some(location) => SettingsError::Name {
                location: location.clone(),
                why,
            },
            None => SettingsError::NoLocation,
        }
    }

    /// What events call the locations, by their ids.
    #[must_use]
    pub fn names(&self) -> Arc<[Arc<str>]> {
        self.0
            .iter()
            .map(|location| location.to_string().into())
            .collect()
    }
}

/// As events show it: `header authorization`, `cookie session`, `query api_key`.
impl Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            LocationKind::Header => write!(f, "header {}", self.name.to_ascii_lowercase()),
            LocationKind::Cookie => write!(f, "cookie {}", self.name),
            LocationKind::Query => write!(f, "query {}", self.name),
        }
    }
}

impl Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Only(ports) => {
                let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
                f.write_str(&ports.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

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
        assert_eq!(after(Some(12 << 20), &[]), 24 << 20);
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
        let error = kernel(&["--ban=1/1/1", "--ban-exempt=10.0.0.0/33"]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("--ban-exempt \"10.0.0.0/33\": a network"),
            "{error}"
        );
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
