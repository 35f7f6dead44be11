//! The arguments of the commands that talk to a running tokenblock.

use std::path::PathBuf;

use clap::{
    Args, Subcommand,
    builder::{StringValueParser, TypedValueParser as _},
};
use zeroize::Zeroizing;

use super::api::{ActionName, KindName};
use crate::import::Format;

/// Where a running tokenblock is.
#[derive(Args, Clone, Debug)]
pub(super) struct SocketArgs {
    /// Its control socket [default: control.sock in the state folder]
    #[arg(long, value_name = "PATH", env = "TOKENBLOCK_CONTROL_SOCKET")]
    pub(super) control_socket: Option<PathBuf>,

    /// Its state folder, as of `tokenblock run`
    #[arg(long, value_name = "DIR", env = "TOKENBLOCK_STATE_DIR")]
    pub(super) state_dir: Option<PathBuf>,

    /// Its API by TCP in place of the socket, as https://HOST:PORT
    #[arg(long, value_name = "URL", env = "TOKENBLOCK_CONTROL_URL")]
    pub(super) control_url: Option<String>,

    /// Authorities in PEM that the certificate there must come from [default: the system's]
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_CONTROL_CA")]
    pub(super) control_ca: Option<PathBuf>,

    /// File with the credential that is shown there
    #[arg(long, value_name = "FILE", env = "TOKENBLOCK_CONTROL_CREDENTIAL")]
    pub(super) control_credential: Option<PathBuf>,
}

/// Where a running tokenblock is, and how its answers are shown.
#[derive(Args, Clone, Debug)]
pub(super) struct CallArgs {
    /// Answers as JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) at: SocketArgs,
}

/// The arguments of `tokenblock status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    pub(super) call: CallArgs,
}

/// What to do with the denylist of a running tokenblock.
#[derive(Debug, Subcommand)]
pub enum DenyCommand {
    /// Adds tokens; they are stored and in force in every tier when this returns
    ///
    /// Without TOKEN, tokens are asked for on a terminal, without echo, or else read from standard input, one a line.
    /// A token that is listed already is no error. In the place of a token its SHA-256 may stand, as `sha256:` and 64
    /// hexadecimal digits.
    Add(AddArgs),
    /// Adds what finders of leaked secrets report, or a denylist file holds, all or nothing
    ///
    /// Reports are read as by `tokenblock import`, and never leave this host. Files called `*.list` and `*.list.gz` are
    /// denylist files; lines of theirs that can't be listed are left out and counted. What is added is stored and in
    /// force in every tier when this returns.
    Import(DenyImportArgs),
    /// Removes tokens that were added; one that a denylist file lists too stays in force
    Remove(RemoveArgs),
    /// Lists all entries, those that were added and those of the files: ids, attributes and hits, never tokens
    List(ListArgs),
    /// Says whether tokens are in force, and why
    Check(CheckArgs),
    /// Writes all entries as lines of a denylist file, `sha256:<id>` and attributes
    Export(ExportArgs),
}

/// Tokens, as given.
#[derive(Args, Clone)]
pub(super) struct TokenArgs {
    /// The token; `-` reads standard input, one token a line. Other users of this host can see arguments:
    /// better leave it out
    #[arg(value_name = "TOKEN|-", value_parser = StringValueParser::new().map(Zeroizing::new))]
    pub(super) token: Option<Zeroizing<String>>,
}

/// Hides the token.
impl std::fmt::Debug for TokenArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenArgs").finish_non_exhaustive()
    }
}

/// The arguments of `deny add`.
#[derive(Args, Debug)]
pub struct AddArgs {
    #[command(flatten)]
    pub(super) tokens: TokenArgs,

    /// When it leaves the list: 2027-01-31T12:00:00Z, or from now on, such as 90d or 12h
    #[arg(long, value_name = "TIME")]
    pub(super) expires: Option<String>,

    /// Why it is listed; shown, so not the token
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,

    /// Where it was found
    #[arg(long, value_name = "TEXT")]
    pub(super) source: Option<String>,

    /// Of a hash: what was hashed [default: either]
    #[arg(long, value_name = "KIND", value_enum)]
    pub(super) kind: Option<KindName>,

    /// What happens to requests that bear it
    #[arg(long, value_name = "ACTION", value_enum, default_value = "block")]
    pub(super) action: ActionName,

    /// Take placeholders and values of little entropy too: others may use them
    #[arg(long)]
    pub(super) force: bool,

    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,

    #[command(flatten)]
    pub(super) call: CallArgs,
}

/// The arguments of `deny import`.
#[derive(Args, Debug)]
pub struct DenyImportArgs {
    /// Reports and denylist files; `-` for standard input
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,

    /// What the reports are [default: what they look like]
    #[arg(long, value_name = "FORMAT", value_enum, conflicts_with = "list")]
    pub(super) format: Option<Format>,

    /// They are denylist files, whatever they are called
    #[arg(long)]
    pub(super) list: bool,

    /// Take placeholders and values of little entropy too: others may use them
    #[arg(long)]
    pub(super) force: bool,

    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,

    #[command(flatten)]
    pub(super) call: CallArgs,
}

/// The arguments of `deny remove`.
#[derive(Args, Debug)]
pub struct RemoveArgs {
    #[command(flatten)]
    pub(super) tokens: TokenArgs,

    /// In place of the token its id, 64 hexadecimal digits, as `deny list --json` shows it (repeatable)
    #[arg(long, value_name = "ID", conflicts_with = "token")]
    pub(super) id: Vec<String>,

    #[command(flatten)]
    pub(super) call: CallArgs,
}

/// The arguments of `deny list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only those that were added, not those of the files
    #[arg(long)]
    pub(super) added: bool,

    #[command(flatten)]
    pub(super) call: CallArgs,
}

/// The arguments of `deny check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    pub(super) tokens: TokenArgs,

    #[command(flatten)]
    pub(super) call: CallArgs,
}

/// The arguments of `deny export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Only those that were added, not those of the files
    #[arg(long)]
    pub(super) added: bool,

    #[command(flatten)]
    pub(super) at: SocketArgs,
}
