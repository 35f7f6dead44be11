//! The command line: every setting once, with its flag, its environment variable and its default.
//!
//! What is here is raw; `settings` checks it.

pub mod given;
pub mod proxy;
pub mod reference;
pub mod units;

use std::path::PathBuf;

use clap::{
    ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    builder::BoolishValueParser,
};

use self::units::{Span, Trust};
use self::{given::Given, proxy::ProxyArgs};
use crate::{
    config_file::ConfigError,
    control::{DenyCommand, StatusArgs},
    exit::Exit,
    import::ImportArgs,
    kernel::pins::DetachArgs,
};

/// Blocks requests that bear a compromised token, in the kernel and in a TLS proxy.
#[derive(Debug, Parser)]
#[command(name = "tokenblock", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enforces a denylist on this host until it is told to stop
    ///
    /// At least one tier is needed: --interface puts the kernel tier on cleartext HTTP, --proxy-listen starts
    /// the TLS proxy. Both read the same denylist, which is in force within a second of a change on disk.
    ///
    /// A setting is taken from its flag, else from its environment variable, else from the configuration file,
    /// else from its default. Where a setting can be given more than once, its values can also be separated
    /// by commas.
    Run(Box<RunArgs>),

    /// Makes a denylist of what finders of leaked secrets report
    ///
    /// Reads reports of gitleaks, trufflehog, GitHub's and GitLab's secret scanning, ggshield and kingfisher,
    /// Postman collections and environments, HTTP archives and .env files, and writes the lines of a denylist
    /// file. Of the last three only values are taken whose names say that they are credentials. Redacted values
    /// are refused, placeholders and values that can be guessed as well. If a report is malformed, nothing is
    /// imported.
    Import(ImportArgs),
    /// Changes or shows the denylist of a running tokenblock
    #[command(subcommand)]
    Deny(DenyCommand),
    /// Ends the enforcement that `tokenblock run --pin-dir` has left
    ///
    /// Takes the programs off the interfaces that are kept in the folder. The `tokenblock run` that kept them has to be
    /// ended first. What is refused by --intercept-fail closed stays so.
    Detach(DetachArgs),
    /// Says how a running tokenblock is; succeeds only where all that is configured is enforced
    Status(StatusArgs),
}

/// The settings of `tokenblock run`, as given.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// All of them as they were given.
    #[arg(skip)]
    pub given: Given,

    /// TOML file with settings: the flags' long names, with `-` or `_`
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_CONFIG")]
    pub config: Option<PathBuf>,

    /// File of compromised tokens, one a line, or folder of such files (`*.list`, `*.list.gz`); watched for
    /// changes (repeatable)
    #[arg(
        long,
        value_name = "FILE|DIR",
        env = "TOKENBLOCK_DENYLIST",
        value_delimiter = ','
    )]
    #[arg(help_heading = "Denylist")]
    pub denylist: Vec<PathBuf>,

    /// Skip entries, and candidates in requests, that are shorter than this many bytes
    #[arg(
        long,
        value_name = "N",
        env = "TOKENBLOCK_MIN_TOKEN_LENGTH",
        default_value_t = 8
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=4096), help_heading = "Denylist")]
    pub min_token_length: u64,

    /// A JWT leaves the list this long after its own `exp`, for instance `5m`, unless its entry says when
    /// [default: it stays]
    #[arg(long, value_name = "MARGIN", env = "TOKENBLOCK_JWT_EXPIRY")]
    #[arg(help_heading = "Denylist")]
    pub jwt_expiry: Option<Span>,

    /// Header whose value may be a token, alone or behind a scheme such as Bearer; replaces the default
    /// names (repeatable)
    #[arg(
        long,
        value_name = "NAME",
        env = "TOKENBLOCK_HEADER",
        value_delimiter = ','
    )]
    #[arg(default_values = HEADERS, help_heading = "Where tokens stand")]
    pub header: Vec<String>,

    /// Cookie whose value may be a token; replaces the default names (repeatable)
    #[arg(
        long,
        value_name = "NAME",
        env = "TOKENBLOCK_COOKIE",
        value_delimiter = ','
    )]
    #[arg(default_values = COOKIES, help_heading = "Where tokens stand")]
    pub cookie: Vec<String>,

    /// Query parameter whose value may be a token; replaces the default names (repeatable)
    #[arg(
        long,
        value_name = "NAME",
        env = "TOKENBLOCK_QUERY",
        value_delimiter = ','
    )]
    #[arg(default_values = QUERIES, help_heading = "Where tokens stand")]
    pub query: Vec<String>,

    /// Report listed tokens, but let them pass
    #[arg(
        long,
        value_name = "BOOL",
        env = "TOKENBLOCK_MONITOR",
        default_value = "false"
    )]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), action = ArgAction::Set, hide_default_value = true)]
    pub monitor: bool,

    /// Interface to protect, by name or glob (`eth*`); needs root, or `CAP_BPF`, `CAP_NET_ADMIN` and
    /// `CAP_PERFMON` (repeatable)
    #[arg(
        long,
        value_name = "NAME|GLOB",
        env = "TOKENBLOCK_INTERFACE",
        value_delimiter = ','
    )]
    #[arg(help_heading = "Kernel tier (cleartext HTTP)")]
    pub interface: Vec<String>,

    /// Whether requests are read as they come in, as they go out, or both
    #[arg(long, value_name = "WHICH", env = "TOKENBLOCK_DIRECTION", value_enum)]
    #[arg(default_value_t = Direction::Ingress, help_heading = "Kernel tier (cleartext HTTP)")]
    pub direction: Direction,

    /// TCP port of a server that speaks cleartext HTTP, or `all`; the defaults are those of HTTP itself and
    /// of most application servers (repeatable)
    #[arg(
        long,
        value_name = "PORT|all",
        env = "TOKENBLOCK_PORT",
        value_delimiter = ','
    )]
    #[arg(default_values = ["80", "8080"], help_heading = "Kernel tier (cleartext HTTP)")]
    pub port: Vec<String>,

    /// What is done when a request is blocked; its packet is dropped in any case
    #[arg(long, value_name = "WHAT", env = "TOKENBLOCK_ON_HIT", value_enum)]
    #[arg(default_value_t = OnHit::Forbid, help_heading = "Kernel tier (cleartext HTTP)")]
    pub on_hit: OnHit,

    /// Most connections with requests under way that are followed at once; where more are, a request that is cut
    /// over several segments is not passed
    #[arg(long, value_name = "N", env = "TOKENBLOCK_MAX_FLOWS")]
    #[arg(
        default_value_t = 65_536,
        help_heading = "Kernel tier (cleartext HTTP)"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_flows: u32,

    /// Bytes of a body with a `Content-Length` that a server must take, without a word in answer, before the rest of it
    /// passes unread, or `never`. It has to be far more than the server and what is between may hold back unread
    /// [default: 8MiB more than the largest receive buffer of this host, at least 16MiB]
    #[arg(long, value_name = "SIZE|never", env = "TOKENBLOCK_TRUST_BODY_AFTER")]
    #[arg(help_heading = "Kernel tier (cleartext HTTP)")]
    pub trust_body_after: Option<Trust>,

    /// What becomes of packets that can't be judged for some reason: `pass`, `drop` or `reset`, for instance
    /// http2=reset (repeatable; docs/reasons.md has the reasons and their defaults)
    #[arg(
        long,
        value_name = "REASON=POLICY",
        env = "TOKENBLOCK_POLICY",
        value_delimiter = ','
    )]
    #[arg(help_heading = "Kernel tier (cleartext HTTP)")]
    pub policy: Vec<String>,

    /// Interfaces by which packets of one connection may come in turn, by name or glob: they are followed as one. A packet may pass
    /// one of them only (repeatable) [default: those of hardware, and members of one bond; `none` for none]
    #[arg(
        long,
        value_name = "NAME|GLOB",
        env = "TOKENBLOCK_UPLINK",
        value_delimiter = ','
    )]
    #[arg(help_heading = "Kernel tier (cleartext HTTP)")]
    pub uplink: Vec<String>,

    /// How the programs are attached to interfaces
    #[arg(long, value_name = "MODE", env = "TOKENBLOCK_ATTACH", value_enum)]
    #[arg(default_value_t = Attach::Auto, help_heading = "Kernel tier (cleartext HTTP)")]
    pub attach: Attach,

    /// Whether packets of blocked flows and banned sources are dropped by XDP, before the kernel takes them in
    #[arg(long, value_name = "MODE", env = "TOKENBLOCK_XDP", value_enum)]
    #[arg(default_value_t = Xdp::Auto, help_heading = "Kernel tier (cleartext HTTP)")]
    pub xdp: Xdp,

    /// Ban a source after N blocked requests within T seconds, for D seconds: nothing from it reaches a
    /// protected port. Many clients may stand behind one address
    #[arg(long, value_name = "N/T/D", env = "TOKENBLOCK_BAN")]
    #[arg(help_heading = "Kernel tier (cleartext HTTP)")]
    pub ban: Option<String>,

    /// Network or address that is never banned, for instance 10.0.0.0/8 (repeatable)
    #[arg(
        long,
        value_name = "CIDR",
        env = "TOKENBLOCK_BAN_EXEMPT",
        value_delimiter = ','
    )]
    #[arg(help_heading = "Kernel tier (cleartext HTTP)")]
    pub ban_exempt: Vec<String>,

    /// Folder on a BPF file system, for instance /sys/fs/bpf/tokenblock: the programs are kept there and go on to block when
    /// this process ends, however it ends, until the next one takes their place or `tokenblock detach` ends it; takes tcx
    /// [default: none; enforcement ends with the process]
    #[arg(long, value_name = "DIR", env = "TOKENBLOCK_PIN_DIR")]
    #[arg(help_heading = "Kernel tier (cleartext HTTP)")]
    pub pin_dir: Option<PathBuf>,

    /// The proxy tier.
    #[command(flatten)]
    pub proxy: ProxyArgs,

    /// Folder of the installation key and of what is added at run time [default: /var/lib/tokenblock for root, else
    /// `$XDG_STATE_HOME/tokenblock` or `~/.local/state/tokenblock`]
    #[arg(
        long,
        value_name = "DIR",
        env = "TOKENBLOCK_STATE_DIR",
        help_heading = "Process"
    )]
    pub state_dir: Option<PathBuf>,

    /// Socket for `tokenblock deny` and `tokenblock status` [default: control.sock in the state folder]
    #[arg(
        long,
        value_name = "PATH",
        env = "TOKENBLOCK_CONTROL_SOCKET",
        help_heading = "Control"
    )]
    pub control_socket: Option<PathBuf>,

    /// Permission bits of the control socket
    #[arg(long, value_name = "MODE", env = "TOKENBLOCK_CONTROL_MODE")]
    #[arg(default_value = "600", help_heading = "Control")]
    pub control_mode: String,

    /// Group whose members may use the control socket too, with --control-mode 660; by name or number
    #[arg(
        long,
        value_name = "GROUP",
        env = "TOKENBLOCK_CONTROL_GROUP",
        help_heading = "Control"
    )]
    pub control_group: Option<String>,

    /// Address at which the control API is served too, over TLS, for instance `127.0.0.1:8444` [default: none]
    #[arg(long, value_name = "ADDR:PORT", env = "TOKENBLOCK_CONTROL_LISTEN")]
    #[arg(help_heading = "Control")]
    pub control_listen: Option<String>,

    /// Certificate chain for --control-listen in PEM; read again when it changes
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_CONTROL_TLS_CERT")]
    #[arg(help_heading = "Control")]
    pub control_tls_cert: Option<PathBuf>,

    /// Private key of that certificate in PEM
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_CONTROL_TLS_KEY")]
    #[arg(help_heading = "Control")]
    pub control_tls_key: Option<PathBuf>,

    /// File of credentials, one a line, 32 characters or more: requests to --control-listen show one as
    /// `Authorization: Bearer`; read again when it changes
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_CONTROL_CREDENTIAL")]
    #[arg(help_heading = "Control")]
    pub control_credential: Option<PathBuf>,

    /// File of credentials of which GitLab shows one: its Token Revocation API is served at --control-listen, and
    /// what GitLab finds is listed
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_GITLAB_CREDENTIAL")]
    #[arg(help_heading = "Control")]
    pub gitlab_credential: Option<PathBuf>,

    /// Header in which GitLab shows its credential
    #[arg(long, value_name = "NAME", env = "TOKENBLOCK_GITLAB_HEADER")]
    #[arg(default_value = "Authorization", help_heading = "Control")]
    pub gitlab_header: String,

    /// Type of tokens that GitLab is told to send, for instance `gitleaks_rule_id_aws` (repeatable)
    #[arg(
        long,
        value_name = "TYPE",
        env = "TOKENBLOCK_GITLAB_TYPE",
        value_delimiter = ','
    )]
    #[arg(help_heading = "Control")]
    pub gitlab_type: Vec<String>,

    /// File of GitHub's public keys, as <https://api.github.com/meta/public_keys/secret_scanning> gives them:
    /// secret scanning reports that they sign are taken at --control-listen; read again when it changes
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_GITHUB_KEYS")]
    #[arg(help_heading = "Control")]
    pub github_keys: Option<PathBuf>,

    /// Form of the log lines on standard error
    #[arg(long, value_name = "FORM", env = "TOKENBLOCK_LOG_FORMAT", value_enum)]
    #[arg(default_value_t = LogFormat::Text, help_heading = "Process")]
    pub log_format: LogFormat,

    /// Least severe lines of tokenblock itself that are logged
    #[arg(long, value_name = "LEVEL", env = "TOKENBLOCK_LOG_LEVEL", value_enum)]
    #[arg(default_value_t = LogLevel::Info, help_heading = "Process")]
    pub log_level: LogLevel,

    /// One more denylist file, every line of which is a token as a whole
    #[arg(long, value_name = "FILE", env = "APIFW_DENYLIST_TOKENS_FILE")]
    #[arg(help_heading = "Settings of Wallarm's API Firewall, as they are")]
    pub apifw_denylist_tokens_file: Option<String>,

    /// One more header
    #[arg(long, value_name = "NAME", env = "APIFW_DENYLIST_TOKENS_HEADER_NAME")]
    #[arg(help_heading = "Settings of Wallarm's API Firewall, as they are")]
    pub apifw_denylist_tokens_header_name: Option<String>,

    /// One more cookie
    #[arg(long, value_name = "NAME", env = "APIFW_DENYLIST_TOKENS_COOKIE_NAME")]
    #[arg(help_heading = "Settings of Wallarm's API Firewall, as they are")]
    pub apifw_denylist_tokens_cookie_name: Option<String>,

    /// Has no effect: the scheme before a token never counts
    #[arg(
        long,
        value_name = "BOOL",
        env = "APIFW_DENYLIST_TOKENS_TRIM_BEARER_PREFIX"
    )]
    #[arg(value_parser = BoolishValueParser::new())]
    #[arg(help_heading = "Settings of Wallarm's API Firewall, as they are")]
    pub apifw_denylist_tokens_trim_bearer_prefix: Option<bool>,
}

/// The subcommand whose settings can stand in a file.
const RUN: &str = "run";

/// Where API gateways, forges and cloud services look for credentials.
const HEADERS: [&str; 10] = [
    "Authorization",
    "Proxy-Authorization",
    "X-API-Key",
    "API-Key",
    "X-Auth-Token",
    "X-Access-Token",
    "X-Amz-Security-Token",
    "PRIVATE-TOKEN",
    "X-Vault-Token",
    // Browsers can set no other field of a WebSocket.
    "Sec-WebSocket-Protocol",
];

/// What common session and token cookies are called.
const COOKIES: [&str; 9] = [
    "session",
    "sessionid",
    "session_id",
    "token",
    "access_token",
    "auth_token",
    "id_token",
    "jwt",
    "auth",
];

/// RFC 6750 section 2.3, and the usual names of API keys.
const QUERIES: [&str; 8] = [
    "access_token",
    "token",
    "auth_token",
    "private_token",
    "api_key",
    "apikey",
    "key",
    "jwt",
];

/// Which way the packets go that the kernel tier reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// Requests to servers behind the interface's host side
    #[default]
    Ingress,
    /// Requests that leave through the interface
    Egress,
    /// Both
    Both,
}

/// What is done when the kernel tier blocks a request.
///
/// A 403 is the default: clients say it in their own logs and don't try again, as they do after a reset or a
/// silence, and neither end keeps a connection open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnHit {
    /// No more; client and server wait until they give up
    Drop,
    /// Both ends get a TCP reset
    Reset,
    /// The client gets `403 Forbidden`, the server a TCP reset; a reset for both where a response is still
    /// under way
    #[default]
    Forbid,
}

/// How the TC programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// By tcx where the kernel has it (Linux 6.6), by clsact otherwise
    #[default]
    Auto,
    /// In front of all other programs of the hook; gone with the process, however it ends, unless --pin-dir keeps them
    Tcx,
    /// As filters of the queueing discipline `clsact`, which stays when they are gone. A process that is killed
    /// leaves its filters, which go on blocking what it last knew
    Clsact,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Xdp {
    /// In the driver of hardware; on other interfaces as `generic`, while flows are blocked
    #[default]
    Auto,
    /// In the driver; not at all where it can't
    Native,
    /// In the kernel's network stack; works everywhere, and saves less
    Generic,
    /// Not at all
    Off,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// How severe a line must be to be logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What needs somebody
    Error,
    /// Also blocked tokens, and what may need somebody
    Warn,
    /// Also starts, stops and changes of the denylist
    #[default]
    Info,
    /// For finding defects
    Debug,
    /// For finding defects, everything
    Trace,
}

/// Why the settings can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A flag or an environment variable is wrong, or help was asked for.
    #[error(transparent)]
    Clap(#[from] clap::Error),
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The whole command, for parsing and for help.
#[must_use]
pub fn command() -> clap::Command {
    let mut command = Cli::command();
    for name in ["run", "deny", "detach", "status"] {
        command = command.mut_subcommand(name, |sub| sub.after_help(Exit::help()));
    }
    command
}

impl Cli {
    /// Reads flags, environment and the configuration file that they name.
    ///
    /// # Errors
    /// [`CliError`], also where help or the version was asked for (as clap does).
    pub fn read<I, T>(arguments: I) -> Result<Self, CliError>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let arguments: Vec<std::ffi::OsString> = arguments.into_iter().map(Into::into).collect();
        let cli = Self::parse_from(command(), &arguments)?;
        let file = match &cli.command {
            Command::Run(run) => run.config.as_ref(),
            Command::Deny(_) | Command::Import(_) | Command::Detach(_) | Command::Status(_) => None,
        };
        let Some(file) = file else {
            return Ok(cli);
        };
        // Once more, now with the file's values as the defaults, so that flags and environment come first.
        let command = crate::config_file::with_defaults(command(), RUN, file)?;
        Ok(Self::parse_from(command, &arguments)?)
    }

    fn parse_from(
        mut command: clap::Command,
        arguments: &[std::ffi::OsString],
    ) -> Result<Self, clap::Error> {
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let Command::Run(run) = &mut cli.command
            && let (Some(command), Some(matches)) = (
                command.find_subcommand(RUN),
                matches.subcommand_matches(RUN),
            )
        {
            run.given = Given::of(command, matches);
        }
        Ok(cli)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_flag_an_environment_variable_and_help() {
        let command = command();
        command.clone().debug_assert();
        let run = command.find_subcommand("run").unwrap();
        let mut settings = 0;
        for arg in run.get_arguments().filter(|arg| arg.get_id() != "help") {
            let long = arg
                .get_long()
                .expect("a long flag")
                .replace('-', "_")
                .to_uppercase();
            let env = arg.get_env().expect("a variable").to_str().unwrap();
            assert!(
                env == format!("TOKENBLOCK_{long}") || env == long,
                "{long}: {env}"
            );
            assert!(arg.get_help().is_some(), "{long}");
            settings += 1;
        }
        assert!(settings > 20, "{settings}");
    }

    #[test]
    fn help_is_complete() {
        let help = command()
            .find_subcommand_mut("run")
            .unwrap()
            .render_long_help()
            .to_string();
        for part in [
            "Exit codes:",
            "78  the configuration file is wrong",
            "[default: 80 8080]",
            "PRIVATE-TOKEN",
        ] {
            assert!(help.contains(part), "{part} in {help}");
        }
    }
}
