//! nginx with one worker and all of its files in one folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Writes a configuration with this text in its `http` block; `name` tells those in one folder apart.
///
/// # Errors
/// Where the file can't be written.
pub fn config(folder: &Path, name: &str, http: &str) -> Result<PathBuf> {
    let file = folder.join(format!("{name}.conf"));
    let folder = folder.display();
    let config = format!(
        "user root;\n\
         daemon off;\n\
         worker_processes 1;\n\
         pid {folder}/{name}.pid;\n\
         error_log /dev/null crit;\n\
         events {{ worker_connections 20000; }}\n\
         http {{\n\
         access_log off;\n\
         client_body_temp_path {folder}/{name}-body;\n\
         proxy_temp_path {folder}/{name}-proxy;\n\
         fastcgi_temp_path {folder}/{name}-fastcgi;\n\
         uwsgi_temp_path {folder}/{name}-uwsgi;\n\
         scgi_temp_path {folder}/{name}-scgi;\n\
         {http}\
         }}\n"
    );
    fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// A server on `address` (nginx's `listen`) that answers 1 KiB to whoever asks, as `http` block. `more` are
/// further locations.
#[must_use]
pub fn origin(address: &str, more: &str) -> String {
    let body = "x".repeat(1024);
    format!(
        "server {{\n\
         listen {address} backlog=4096;\n\
         keepalive_requests 1000000000;\n\
         client_max_body_size 0;\n\
         {more}\
         location / {{ return 200 '{body}'; }}\n\
         }}\n"
    )
}
