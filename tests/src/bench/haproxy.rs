//! HAProxy in cleartext with a list, as its manual says to hold one: exact strings in a tree.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Writes the configuration of a proxy on `port` before an origin of the same host, which refuses the tokens of the
/// file `list`; its runtime socket is `haproxy.sock` in the folder.
///
/// # Errors
/// Where the file can't be written.
pub fn cleartext(folder: &Path, port: u16, list: &Path, origin: u16) -> Result<PathBuf> {
    let config = format!(
        "global\n  nbthread 1\n  maxconn 20000\n  no strict-limits\n\
         \x20 stats socket {socket} mode 600 level admin\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  http-reuse always\n\
         frontend cleartext\n  bind 0.0.0.0:{port}\n\
         \x20 http-request deny if {{ http_auth_bearer -f {list} }}\n  default_backend origin\n\
         backend origin\n  server origin 127.0.0.1:{origin}\n",
        socket = folder.join("haproxy.sock").display(),
        list = list.display(),
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}
