//! The settings of the control API by TCP, checked.

use std::path::PathBuf;

use super::SettingsError;
use crate::{
    cli::RunArgs,
    control::{GitlabSettings, RemoteSettings},
    proxy::TlsFiles,
};

const LISTEN: &str = "--control-listen";
const CERT: &str = "--control-tls-cert";
const KEY: &str = "--control-tls-key";
const CREDENTIAL: &str = "--control-credential";
const GITLAB: &str = "--gitlab-credential";
const TYPE: &str = "--gitlab-type";
const GITHUB: &str = "--github-keys";

fn needed(needed: &'static str, by: &'static str) -> SettingsError {
    SettingsError::Needed { needed, by }
}

/// Where the API is served by TCP, if it is to be.
pub(super) fn check(args: &RunArgs) -> Result<Option<RemoteSettings>, SettingsError> {
    let gitlab = gitlab(args)?;
    let Some(listen) = &args.control_listen else {
        let without = [
            (args.control_tls_cert.is_some(), CERT),
            (args.control_tls_key.is_some(), KEY),
            (args.control_credential.is_some(), CREDENTIAL),
            (gitlab.is_some(), GITLAB),
            (args.github_keys.is_some(), GITHUB),
        ];
        return match without.into_iter().find(|(given, _)| *given) {
            Some((_, by)) => Err(needed(LISTEN, by)),
            None => Ok(None),
        };
    };
    let file = |given: &Option<PathBuf>, name| given.clone().ok_or(needed(name, LISTEN));
    if args.control_credential.is_none() && gitlab.is_none() && args.github_keys.is_none() {
        return Err(needed(CREDENTIAL, LISTEN));
    }
    Ok(Some(RemoteSettings {
        listen: listen
            .parse()
            .map_err(|_no_address| SettingsError::ControlListen(listen.clone()))?,
        tls: TlsFiles {
            cert: file(&args.control_tls_cert, CERT)?,
            key: file(&args.control_tls_key, KEY)?,
        },
        credential: args.control_credential.clone(),
        gitlab,
        github_keys: args.github_keys.clone(),
    }))
}

fn gitlab(args: &RunArgs) -> Result<Option<GitlabSettings>, SettingsError> {
    let Some(credential) = &args.gitlab_credential else {
        return if args.gitlab_type.is_empty() {
            Ok(None)
        } else {
            Err(needed(GITLAB, TYPE))
        };
    };
    if args.gitlab_type.is_empty() {
        return Err(needed(TYPE, GITLAB));
    }
    let header = args.gitlab_header.parse();
    Ok(Some(GitlabSettings {
        credential: credential.clone(),
        header: header
            .map_err(|_no_name| SettingsError::GitlabHeader(args.gitlab_header.clone()))?,
        types: args.gitlab_type.clone(),
    }))
}
