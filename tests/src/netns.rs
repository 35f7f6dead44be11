//! Network namespaces of the tests' own, removed when dropped.

use std::{
    cell::RefCell,
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The interface that leads to the other namespace of a [`Pair`].
pub const INTERFACE: &str = "eth0";
/// The server's address in a [`Pair`].
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// The client's address in a [`Pair`].
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// The server's IPv6 address in a [`Pair`].
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
/// The client's IPv6 address in a [`Pair`].
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));

static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The namespace that this thread is inside of.
    static INSIDE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with a unique name, its loopback interface up.
    ///
    /// # Errors
    /// Where `ip` refuses, for instance for lack of privilege.
    pub fn new() -> Result<Self> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tokenblock-{}-{count}", process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let netns = Self { name };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Runs `ip` with `args` (separated by spaces) in this namespace; gives what it printed.
    ///
    /// # Errors
    /// Where it fails, with what it said.
    pub fn ip(&self, args: &str) -> Result<String> {
        run(Command::new("ip")
            .args(["-n", &self.name])
            .args(args.split(' ')))
    }

    /// Has `ip` do several things in this namespace, one a line, at once.
    ///
    /// # Errors
    /// Where one of them fails, with what it said; those before are done.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting ip")?;
        let mut input = child.stdin.take().context("ip takes no input")?;
        input.write_all(lines.as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Has what comes in on an interface of this namespace taken in by some cores alone, wherever it was sent;
    /// `mask` is hexadecimal, a bit each.
    ///
    /// # Errors
    /// Where the kernel can't steer packets (`CONFIG_RPS`).
    pub fn receive_on(&self, interface: &str, mask: &str) -> Result<()> {
        let file = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
        let script = format!("echo {mask} > {file}");
        // `ip netns exec` shows the namespace's own interfaces in /sys.
        run(Command::new("ip").args(["netns", "exec", &self.name, "sh", "-c", &script]))?;
        Ok(())
    }

    /// A command that will run `program` in this namespace. Mounts stay as they are.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path()))
            .arg("--")
            .arg(program);
        command
    }

    /// Sets a switch of the kernel's for it, of `/proc/sys/net/ipv4`.
    ///
    /// # Errors
    /// Where there is no such switch or value.
    pub fn set_ipv4(&self, name: &str, value: &str) -> Result<()> {
        self.set_net(&format!("ipv4/{name}"), value)
    }

    /// The same, of `/proc/sys/net`.
    ///
    /// # Errors
    /// As there.
    pub fn set_net(&self, name: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/net/{name}");
        let set = self.enter(|| fs::write(&file, value))?;
        set.with_context(|| format!("writing {value} to {file}"))
    }

    /// Does `work` on a thread inside this namespace: a new one, unless the caller is inside already. Sockets that it
    /// opens stay inside wherever they go.
    ///
    /// # Errors
    /// Where the namespace can't be entered, or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        if INSIDE.with_borrow(|inside| *inside == self.name) {
            return Ok(work());
        }
        let file = File::open(self.path()).context("a namespace is gone")?;
        thread::scope(|scope| {
            let worker = scope.spawn(|| -> Result<T> {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("entering {}", self.name))?;
                INSIDE.set(self.name.clone());
                Ok(work())
            });
            worker
                .join()
                .map_err(|_panic| anyhow!("a thread in {} panicked", self.name))?
        })
    }

    /// The link address of an interface.
    ///
    /// # Errors
    /// Where there is no such interface.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let said = self.ip(&format!("-o link show dev {interface}"))?;
        let parse = || -> Option<[u8; 6]> {
            let text = said.split_once("link/ether ")?.1.split(' ').next()?;
            let bytes: Option<Vec<u8>> = text
                .split(':')
                .map(|byte| u8::from_str_radix(byte, 16).ok())
                .collect();
            bytes?.try_into().ok()
        };
        parse().with_context(|| format!("no link address in {said:?}"))
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Also while a test unwinds; a failure here would hide its reason.
        drop(run(Command::new("ip").args(["netns", "delete", &self.name])));
    }
}

/// A client and a server, one veth link between them, IPv4 and IPv6 on it.
#[derive(Debug)]
pub struct Pair {
    /// Where clients run.
    pub client: Netns,
    /// Where origins and the product run.
    pub server: Netns,
}

impl Pair {
    /// Makes both namespaces and the link.
    ///
    /// # Errors
    /// As [`Netns::new`].
    pub fn new() -> Result<Self> {
        let pair = Self {
            client: Netns::new()?,
            server: Netns::new()?,
        };
        link(&pair.server, INTERFACE, &pair.client, INTERFACE)?;
        pair.address()?;
        Ok(pair)
    }

    /// The same with a namespace between them, where two links end that have these names: to the client, to the server.
    ///
    /// # Errors
    /// As [`Netns::new`].
    pub fn through(middle: &Netns, links: [&str; 2]) -> Result<Self> {
        let pair = Self {
            client: Netns::new()?,
            server: Netns::new()?,
        };
        for (name, end) in links.into_iter().zip([&pair.client, &pair.server]) {
            link(end, INTERFACE, middle, name)?;
            middle.ip(&format!("link set {name} up"))?;
        }
        pair.address()?;
        Ok(pair)
    }

    /// Gives both ends their addresses.
    fn address(&self) -> Result<()> {
        for (netns, v4, v6) in [
            (&self.server, SERVER_V4, SERVER_V6),
            (&self.client, CLIENT_V4, CLIENT_V6),
        ] {
            netns.ip(&format!("address add {v4}/24 dev {INTERFACE}"))?;
            // Without duplicate address detection the address can be used at once.
            netns.ip(&format!("address add {v6}/64 dev {INTERFACE} nodad"))?;
            netns.ip(&format!("link set {INTERFACE} up"))?;
        }
        Ok(())
    }

    /// The server's addresses of both families at `port`.
    #[must_use]
    pub fn server_addresses(&self, port: u16) -> [SocketAddr; 2] {
        [SERVER_V4, SERVER_V6].map(|address| SocketAddr::new(address, port))
    }
}

/// Makes a link between two namespaces, down at both ends.
///
/// # Errors
/// Where `ip` refuses, for instance for a name that is taken.
pub fn link(one: &Netns, name: &str, other: &Netns, other_name: &str) -> Result<()> {
    let peer = ["type", "veth", "peer", "name", other_name];
    run(Command::new("ip")
        .args(["link", "add", name, "netns", &one.name])
        .args(peer)
        .args(["netns", &other.name]))?;
    Ok(())
}

/// Runs a command to its end; gives its output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
