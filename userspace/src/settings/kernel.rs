//! The settings of the kernel tier, checked.

use std::{
    fmt::{self, Display},
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use tokenblock_ebpf::verdict::Policies;

use super::{SettingsError, Surroundings, policy};
use crate::cli::{Attach, Direction, OnHit, RunArgs, Xdp};

/// What the kernel tier protects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSettings {
    /// Names or globs of interfaces; at least one.
    pub interfaces: Vec<String>,
    /// Names or globs of those that are followed as one; those that are seen to be where there is none.
    pub uplinks: Vec<String>,
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
    /// The folder on a BPF file system in which the programs outlive the process, where they do.
    pub pin_dir: Option<PathBuf>,
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

/// Checks what was given; none where there is to be no kernel tier.
pub(super) fn check(
    args: &RunArgs,
    surroundings: &Surroundings,
) -> Result<Option<KernelSettings>, SettingsError> {
    const LONGEST: usize = 15; // IFNAMSIZ, less the final NUL
    if args.interface.is_empty() {
        return Ok(None);
    }
    for name in args.interface.iter().chain(&args.uplink) {
        let is_glob = name.contains(['*', '?', '[']);
        let is_name = !name.is_empty() && !name.contains(|c: char| c == '/' || c.is_whitespace());
        if !is_name || (name.len() > LONGEST && !is_glob) {
            return Err(SettingsError::Interface(name.clone()));
        }
    }
    Ok(Some(KernelSettings {
        interfaces: args.interface.clone(),
        uplinks: args.uplink.clone(),
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
        pin_dir: args.pin_dir.clone(),
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
pub(super) fn network(flag: &'static str, text: &str) -> Result<IpNet, SettingsError> {
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
