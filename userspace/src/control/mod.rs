//! The control socket of a running tokenblock, and the commands that use it.
//!
//! Here: `socket | remote -> serve -> desk -> api -> keeper`. There: `args -> commands -> client -> server`.

mod api;
mod args;
mod body;
mod client;
mod commands;
mod counters;
mod credential;
mod desk;
mod export;
mod files;
mod import;
mod peer;
mod prompt;
mod receivers;
mod refusal;
mod remote;
mod serve;
mod server;
mod settings;
mod socket;
mod upload;
mod watched;

pub use api::{KernelStatus, ProxyStatus, TiersStatus};
pub use args::{DenyCommand, StatusArgs};
pub use client::ClientError;
pub use commands::{deny, status};
pub use counters::ControlCounters;
pub use desk::{Backing, Questions};
pub use remote::RemoteError;
pub use serve::{Control, ControlError};
pub use settings::{ControlSettings, ControlSettingsError, GitlabSettings, RemoteSettings};
pub use socket::SocketError;
