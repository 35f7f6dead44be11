//! The distribution's packages (Debian, Ubuntu), for the programs that a task starts.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::exec;

/// A program that a task starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

/// Makes namespaces and interfaces.
pub(crate) const IP: Tool = Tool {
    program: "ip",
    package: "iproute2",
};

/// The client of the demonstration and of the tests.
pub(crate) const CURL: Tool = Tool {
    program: "curl",
    package: "curl",
};

/// A proxy that ours is measured against.
pub(crate) const HAPROXY: Tool = Tool {
    program: "haproxy",
    package: "haproxy",
};

/// The same; also the origin behind them.
pub(crate) const NGINX: Tool = Tool {
    program: "nginx",
    package: "nginx",
};

/// A packet filter that ours is measured against.
pub(crate) const IPTABLES: Tool = Tool {
    program: "iptables",
    package: "iptables",
};

/// A client and a server of the tests.
pub(crate) const NODE: Tool = Tool {
    program: "node",
    package: "nodejs",
};

/// A client of the tests, and the authority of their stapled responses.
pub(crate) const OPENSSL: Tool = Tool {
    program: "openssl",
    package: "openssl",
};

/// Servers and clients of the tests.
pub(crate) const PYTHON: Tool = Tool {
    program: "python3",
    package: "python3",
};

/// A client of the tests.
pub(crate) const WGET: Tool = Tool {
    program: "wget",
    package: "wget",
};

/// Makes core dumps of processes of the tests.
pub(crate) const GCORE: Tool = Tool {
    program: "gcore",
    package: "gdb",
};

/// Gives processes of the tests a clock of their own.
pub(crate) const FAKETIME: Tool = Tool {
    program: "faketime",
    package: "faketime",
};

/// A client of the tests, with the HTTP library of Go.
pub(crate) const HEY: Tool = Tool {
    program: "hey",
    package: "hey",
};

/// Starts the units of `deploy/` in the tests.
pub(crate) const SYSTEMD: Tool = Tool {
    program: "systemctl",
    package: "systemd",
};

/// A browser of the tests: Chromium without a window, a third smaller than the whole.
pub(crate) const CHROMIUM: Tool = Tool {
    program: "chromium-headless-shell",
    package: "chromium-headless-shell",
};

/// Load over HTTP/1.1.
pub(crate) const WRK: Tool = Tool {
    program: "wrk",
    package: "wrk",
};

/// Load over HTTP/2.
pub(crate) const H2LOAD: Tool = Tool {
    program: "h2load",
    package: "nghttp2-client",
};

/// Installs those tools that are missing.
///
/// # Errors
/// Where one can't be installed.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing: Vec<_> = tools
        .iter()
        .filter(|tool| !exec::is_on_path(tool.program))
        .map(|tool| tool.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

/// Installs a tool that not every distribution has, where it is missing and can be had. Who needs it does without
/// otherwise, and says so.
pub(crate) fn offer(tool: Tool) {
    if let Err(error) = ensure(&[tool]) {
        println!("doing without {}: {error:#}", tool.package);
    }
}

/// Installs packages, through sudo where not root, and says so.
///
/// # Errors
/// Where there is no apt-get, no privilege, or a package can't be had.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let wanted = packages.join(" ");
    println!("installing the packages {wanted}");
    let install = || -> Result<()> {
        exec::run(apt_get().args(["-qq", "update"]))?;
        exec::run(
            apt_get()
                .args(["-qq", "-y", "--no-install-recommends", "install"])
                .args(packages),
        )
    };
    install().with_context(|| format!("please install {wanted}, then start the task again"))
}

fn apt_get() -> Command {
    let mut command = exec::as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
}
