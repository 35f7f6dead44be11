//! The control socket of a running tokenblock, and the commands that use it.
//!
//! Here: `socket -> serve -> api -> keeper`. There: `args -> commands -> client`.

mod api;
mod args;
mod body;
mod client;
mod commands;
mod peer;
mod serve;
mod settings;
mod socket;

pub use api::{KernelStatus, ProxyStatus, TiersStatus};
pub use args::{DenyCommand, StatusArgs};
pub use client::ClientError;
pub use commands::{deny, status};
pub use serve::{Control, Questions};
pub use settings::{ControlSettings, ControlSettingsError};
pub use socket::SocketError;
