//! How the process ends: one code for each kind of failure, as sysexits.h numbers them.

use std::{fmt::Write as _, io, process::ExitCode};

use crate::{
    config_file::ConfigError,
    control::{ClientError, ControlError, RemoteError, SocketError},
    import::ImportError,
    kernel::{error::KernelError, pins::PinDirError},
    key::KeyError,
    proxy::ProxyError,
    settings::SettingsError,
    sources::FileError,
    state::StateError,
};

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was told to, or is done.
    Ok = 0,
    /// The answer is no: not listed, still listed, not in force.
    No = 1,
    /// A wrong flag, environment setting, or combination of them.
    Usage = 64,
    /// A malformed line in a denylist file, or a certificate or key that can't be used.
    Data = 65,
    /// A file that is missing or can't be read.
    NoInput = 66,
    /// The kernel lacks a feature, this binary the programs, or no `tokenblock run` answers.
    Unavailable = 69,
    /// A defect of this program.
    Internal = 70,
    /// The system refused something: a port in use, no more memory or descriptors.
    Os = 71,
    /// The running tokenblock could not make a change now.
    TempFail = 75,
    /// A privilege is missing.
    NoPermission = 77,
    /// A wrong configuration file.
    Config = 78,
}

/// A failure that ends the process: what went wrong, with its causes, and the code to end with.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What is shown.
    pub error: anyhow::Error,
}

impl Failure {
    /// Ends the process with this code for this reason.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }
}

impl Exit {
    const MEANINGS: [(Self, &'static str); 11] = [
        (Self::Ok, "done; `run`: ended by SIGINT or SIGTERM"),
        (
            Self::No,
            "`check`: not listed; `remove`: still listed by a file; `status`: not in force",
        ),
        (Self::Usage, "a flag or an environment setting is wrong"),
        (
            Self::Data,
            "a denylist, a token, a report, a certificate, a key or the state is malformed",
        ),
        (Self::NoInput, "a file is missing or can't be read"),
        (
            Self::Unavailable,
            "the kernel lacks a feature, the binary its programs, or no tokenblock answers",
        ),
        (Self::Internal, "a defect of tokenblock"),
        (
            Self::Os,
            "the system refused something, for instance a port in use",
        ),
        (Self::TempFail, "the change could not be made now"),
        (Self::NoPermission, "a privilege is missing"),
        (Self::Config, "the configuration file is wrong"),
    ];

    /// The codes and their meanings, for `--help`.
    #[must_use]
    pub fn help() -> String {
        let mut help = String::from("Exit codes:");
        for (exit, meaning) in Self::MEANINGS {
            // Writing to a string can't fail.
            let _infallible = write!(help, "\n  {:>2}  {meaning}", exit as u8);
        }
        help
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let exit = match error {
            FileError::Line { .. } | FileError::Gzip { .. } | FileError::Expands(_) => Exit::Data,
            FileError::NotFound(_)
            | FileError::Denied(_)
            | FileError::NotAFile { .. }
            | FileError::TooLarge { .. }
            | FileError::NoLists(_)
            | FileError::Io { .. } => Exit::NoInput,
        };
        Self::new(exit, error)
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let exit = match &error {
            ImportError::Read { .. } | ImportError::TooLarge(_) => Exit::NoInput,
            ImportError::Report { .. } => Exit::Data,
            ImportError::Terminal => Exit::Usage,
            ImportError::Write { error, .. } => of_io(error),
        };
        Self::new(exit, error)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let exit = match &error {
            KeyError::Exposed { .. } => Exit::NoPermission,
            KeyError::Malformed(_) => Exit::Data,
            KeyError::Folder { error, .. } | KeyError::Io { error, .. } => of_io(error),
            KeyError::Random(_) => Exit::Os,
        };
        Self::new(exit, error)
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let exit = match &error {
            StateError::Locked(_) | StateError::Gone(_) => Exit::Os,
            StateError::Folder { error, .. } | StateError::Io { error, .. } => of_io(error),
            StateError::Corrupt { .. } | StateError::Newer { .. } | StateError::OtherKey(_) => {
                Exit::Data
            }
        };
        Self::new(exit, error)
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        let exit = match &error {
            SocketError::TooLong(_) => Exit::Usage,
            SocketError::InUse(_) => Exit::Os,
            SocketError::Io { error, .. } => of_io(error),
        };
        Self::new(exit, error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Socket(error) => error.into(),
            ControlError::Remote(error) => error.into(),
        }
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        let exit = match error {
            RemoteError::Tls(error) => return error.into(),
            RemoteError::Listen { ref error, .. } => of_io(error),
            RemoteError::Read { .. } => Exit::NoInput,
            RemoteError::Exposed { .. } => Exit::NoPermission,
            RemoteError::Weak(_) | RemoteError::Keys { .. } => Exit::Data,
        };
        Self::new(exit, error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Denied(_)
            | ClientError::Refused {
                status: 401 | 403, ..
            } => Exit::NoPermission,
            ClientError::NobodyThere(_) | ClientError::Unreachable { .. } => Exit::Unavailable,
            ClientError::Refused {
                status: 400..=499, ..
            } => Exit::Data,
            ClientError::Refused { .. } | ClientError::Broken(_) | ClientError::Unsettled(_) => {
                Exit::TempFail
            }
        };
        Self::new(exit, error)
    }
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        let exit = match &error {
            ProxyError::AddressInUse(_) => Exit::Os,
            ProxyError::Listen { source, .. } | ProxyError::Worker(source) => of_io(source),
            ProxyError::Pem { .. } => Exit::NoInput,
            ProxyError::EmptyPem { .. }
            | ProxyError::KeyMismatch { .. }
            | ProxyError::Certificate { .. }
            | ProxyError::Tls(_) => Exit::Data,
            ProxyError::ServerName(_) | ProxyError::Passed(_) => Exit::Usage,
            ProxyError::NoSystemRoots => Exit::Unavailable,
        };
        Self::new(exit, error)
    }
}

impl From<PinDirError> for Failure {
    fn from(error: PinDirError) -> Self {
        Self::new(of_pins(&error), error)
    }
}

fn of_pins(error: &PinDirError) -> Exit {
    match error {
        PinDirError::NotBpf(_) => Exit::Usage,
        PinDirError::Foreign(_) | PinDirError::OtherNetns { .. } => Exit::Data,
        PinDirError::Locked(_) | PinDirError::Link { .. } => Exit::Os,
        PinDirError::Io { source, .. } => of_io(source),
    }
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        let exit = match &error {
            KernelError::Permission { .. } => Exit::NoPermission,
            KernelError::NoObject(_) | KernelError::TooOld { .. } | KernelError::Refused { .. } => {
                Exit::Unavailable
            }
            KernelError::NoInterface { .. }
            | KernelError::BadGlob { .. }
            | KernelError::BadLink { .. } => Exit::Usage,
            KernelError::PinDir(error) => of_pins(error),
            KernelError::BadObject { .. } | KernelError::Stopping => Exit::Internal,
            KernelError::Attach { .. }
            | KernelError::Netlink(_)
            | KernelError::Netns(_)
            | KernelError::Pin { .. }
            | KernelError::Cpus(_)
            | KernelError::Watch(_)
            | KernelError::Share(_)
            | KernelError::Random(_)
            | KernelError::Load(_)
            | KernelError::Program(_)
            | KernelError::Map(_) => Exit::Os,
        };
        Self::new(exit, error)
    }
}

fn of_io(error: &io::Error) -> Exit {
    if error.kind() == io::ErrorKind::PermissionDenied {
        Exit::NoPermission
    } else {
        Exit::Os
    }
}
