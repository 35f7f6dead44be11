//! Two network namespaces with a cable between them.

use std::{fs::File, path::Path, process, process::Command, thread};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd as _;

use crate::exec;

/// The server's end of the cable, inside its namespace.
pub(crate) const SERVER_INTERFACE: &str = "server0";
/// The server's address (RFC 5737, documentation).
pub(crate) const SERVER_ADDRESS: &str = "192.0.2.2";

const CLIENT_INTERFACE: &str = "client0";
const CLIENT_ADDRESS: &str = "192.0.2.1";

/// The client's namespace, the server's, and the cable; gone when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    client: Namespace,
    server: Namespace,
}

impl Lab {
    /// Makes them; this process's own network isn't touched.
    ///
    /// # Errors
    /// Where the kernel or `ip` refuses.
    pub(crate) fn new() -> Result<Self> {
        let lab = Self {
            client: Namespace::new("client")?,
            server: Namespace::new("server")?,
        };
        ip(&[
            "link",
            "add",
            CLIENT_INTERFACE,
            "netns",
            &lab.client.name,
            "type",
            "veth",
            "peer",
            "name",
            SERVER_INTERFACE,
            "netns",
            &lab.server.name,
        ])?;
        lab.client.set_up(CLIENT_INTERFACE, CLIENT_ADDRESS)?;
        lab.server.set_up(SERVER_INTERFACE, SERVER_ADDRESS)?;
        Ok(lab)
    }

    /// Where the requests come from.
    pub(crate) fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where the origin and the product run.
    pub(crate) fn server(&self) -> &Namespace {
        &self.server
    }
}

/// A named network namespace; removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn new(role: &str) -> Result<Self> {
        let name = format!("tokenblock-{}-{role}", process::id());
        ip(&["netns", "add", &name])?;
        Ok(Self { name })
    }

    fn set_up(&self, interface: &str, address: &str) -> Result<()> {
        let address = format!("{address}/24");
        ip(&[
            "-n", &self.name, "address", "add", &address, "dev", interface,
        ])?;
        ip(&["-n", &self.name, "link", "set", interface, "up"])?;
        ip(&["-n", &self.name, "link", "set", "lo", "up"])
    }

    /// A command that starts this program inside.
    pub(crate) fn command(&self, program: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Calls `make` inside; the sockets that it makes stay there.
    ///
    /// # Errors
    /// Where the namespace can't be entered, and what `make` gives.
    pub(crate) fn inside<T: Send>(&self, make: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.name);
        // A thread of its own: only it changes its namespace, and it ends with the call.
        let call = || {
            let namespace = File::open(&path).with_context(|| path.display().to_string())?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("entering a network namespace")?;
            make()
        };
        thread::scope(|scope| scope.spawn(call).join())
            .map_err(|_panic| anyhow!("a thread inside {} panicked", self.name))?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            println!(
                "left behind: the network namespace {}: {error:#}",
                self.name
            );
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    exec::output(Command::new("ip").args(args)).map(drop)
}
