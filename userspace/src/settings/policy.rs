//! `--policy REASON=POLICY`: what becomes of packets that can't be judged.

use thiserror::Error;
use tokenblock_ebpf::verdict::{Counter, Policies, Policy};

/// The reasons that can be given a policy. What is dropped because it comes again (`too_early`, `duplicate`,
/// `out_of_window`) is not among them: that is how the stream is made exact.
pub const REASONS: [Counter; 15] = [
    Counter::Fragment,
    Counter::LaterFragment,
    Counter::SourceRouted,
    Counter::RoutedTunnel,
    Counter::HeadersTooLong,
    Counter::Encapsulated,
    Counter::Malformed,
    Counter::MidStream,
    Counter::FlowTableFull,
    Counter::FlowBusy,
    Counter::GapConflict,
    Counter::Http2,
    Counter::AmbiguousFraming,
    Counter::ScanUnfinished,
    Counter::ReadFailed,
];

/// Not a policy.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PolicyError {
    /// Not `REASON=POLICY`.
    #[error("--policy {0:?}: reads REASON=POLICY, for instance http2=reset")]
    Form(String),
    /// No such reason.
    #[error("--policy {given}: no reason {reason:?}; there are {known}", known = names())]
    Reason {
        /// As given.
        given: String,
        /// What should be one.
        reason: String,
    },
    /// No such policy.
    #[error("--policy {given}: no policy {policy:?}; there are pass, drop, reset")]
    Unknown {
        /// As given.
        given: String,
        /// What should be one.
        policy: String,
    },
    /// Nothing can be reset.
    #[error(
        "--policy {0}: a reset answers a TCP header, and none is read of such a packet; use drop"
    )]
    NoReset(String),
}

fn names() -> String {
    REASONS.map(Counter::name).join(", ")
}

/// The policies, the given ones in place of the defaults.
pub(super) fn check(given: &[String]) -> Result<Policies, PolicyError> {
    let mut policies = Policies::default();
    for given in given {
        let given = given.trim();
        let (reason, policy) = given
            .split_once('=')
            .ok_or_else(|| PolicyError::Form(given.to_owned()))?;
        let (reason, policy) = (reason.trim(), policy.trim());
        let known = REASONS.into_iter().find(|known| known.name() == reason);
        let Some(known) = known else {
            return Err(PolicyError::Reason {
                given: given.to_owned(),
                reason: reason.to_owned(),
            });
        };
        let policy = match policy {
            "pass" => Policy::Pass,
            "drop" => Policy::Drop,
            "reset" if known.is_unread() => return Err(PolicyError::NoReset(given.to_owned())),
            "reset" => Policy::Reset,
            _ => {
                return Err(PolicyError::Unknown {
                    given: given.to_owned(),
                    policy: policy.to_owned(),
                });
            }
        };
        policies.set(known, policy);
    }
    Ok(policies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(given: &str) -> Result<Policies, PolicyError> {
        check(&[given.to_owned()])
    }

    #[test]
    fn a_given_policy_takes_the_place_of_the_default() {
        let policies = check_one(" http2 = reset ").unwrap();
        assert_eq!(policies.of(Counter::Http2), Policy::Reset);
        assert_eq!(policies.of(Counter::Fragment), Policy::Drop);
        assert_eq!(check(&[]).unwrap(), Policies::default());
    }

    #[test]
    fn what_is_none_is_told() {
        assert!(matches!(check_one("http2"), Err(PolicyError::Form(_))));
        let error = check_one("http3=drop").unwrap_err().to_string();
        assert!(
            error.contains("http3") && error.contains("http2"),
            "{error}"
        );
        let error = check_one("http2=block").unwrap_err().to_string();
        assert!(
            error.contains("block") && error.contains("reset"),
            "{error}"
        );
        assert_eq!(
            check_one("fragment=reset"),
            Err(PolicyError::NoReset("fragment=reset".to_owned()))
        );
    }
}
