//! What the running kernel is.

use aya::util::KernelVersion;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketType,
        netdevice::{index_to_name, name_to_index},
        socket,
    },
    system::uname,
};

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

/// Whether one of these is among the causes of an error.
#[must_use]
pub(super) fn has_errno(error: &(dyn std::error::Error + 'static), numbers: &[Errno]) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let number = error.raw_os_error();
            return numbers
                .iter()
                .any(|errno| number == Some(errno.raw_os_error()));
        }
        cause = error.source();
    }
    false
}

/// Whether there is an interface of this index; also where that can't be told.
#[must_use]
pub(super) fn has_interface(index: u32) -> bool {
    socket(AddressFamily::UNIX, SocketType::DGRAM, None)
        .map_or(true, |socket| index_to_name(&socket, index).is_ok())
}

/// Whether the interface of this index has this name; also where that can't be told.
#[must_use]
pub(super) fn is_called(index: u32, name: &str) -> bool {
    socket(AddressFamily::UNIX, SocketType::DGRAM, None)
        .map_or(true, |socket| name_to_index(&socket, name) == Ok(index))
}
