//! The words of a line that name claims of JWTs: `jwt:iss=https://idp.example jwt:sub="alice"`.

use strum::VariantArray as _;

use super::line::{LineError, split_at_white};
use crate::denylist::{Asked, Claim};

const PREFIX: &str = "jwt:";
/// Longest value in bytes.
const LONGEST: usize = 1024;

/// Whether a line begins so.
pub(super) fn is_claims(line: &str) -> bool {
    let prefix = line.get(..PREFIX.len());
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
}

/// The conditions that a line begins with, and what follows them.
pub(super) fn conditions(mut line: &str) -> Result<(Asked<'_>, &str), LineError> {
    let mut conditions = Vec::new();
    while is_claims(line) {
        let word = line.get(PREFIX.len()..).unwrap_or_default();
        let (name, value) = word.split_once('=').ok_or(LineError::Claim)?;
        let (value, rest) = match value.strip_prefix('"') {
            Some(quoted) => {
                let (value, rest) = quoted.split_once('"').ok_or(LineError::Claim)?;
                if !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
                    return Err(LineError::Claim);
                }
                (value, rest.trim_start_matches([' ', '\t']))
            }
            None => split_at_white(value),
        };
        let known = |claim: &&Claim| <&str>::from(**claim) == name;
        let claim = *Claim::VARIANTS.iter().find(known).ok_or(LineError::Claim)?;
        let unfit = value.is_empty() || value.len() > LONGEST || value.contains('"');
        if unfit || value.chars().any(char::is_control) {
            return Err(LineError::Claim);
        }
        if conditions.iter().any(|(given, _)| *given == claim) {
            return Err(LineError::Twice(claim.into()));
        }
        conditions.push((claim, value));
        line = rest;
    }
    Ok((conditions, line))
}
