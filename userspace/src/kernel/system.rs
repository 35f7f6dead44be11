//! What the running kernel is.

use aya::util::KernelVersion;
use rustix::system::uname;

/// Whether the running kernel is of this version or later; false where it does not say.
#[must_use]
pub(super) fn kernel_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, 0))
}

/// The running kernel's version, for messages.
#[must_use]
pub(super) fn kernel_version() -> String {
    uname().release().to_string_lossy().into_owned()
}
