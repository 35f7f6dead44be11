//! Why the kernel tier can't work.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use thiserror::Error;

use super::{object::BuiltWithout, pins::PinDirError, system};

/// Why the kernel tier can't start or go on.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The binary was built without the programs.
    #[error(transparent)]
    NoObject(#[from] BuiltWithout),
    /// The programs are not those that this binary expects.
    #[error("the kernel programs lack `{what}`: build both sides with `cargo xtask build`")]
    BadObject {
        /// The map or program that is missing.
        what: &'static str,
    },
    /// The process may not use BPF.
    #[error(
        "no permission to load BPF programs: run as root, or with the capabilities CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON"
    )]
    Permission {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel lacks what the programs need.
    #[error(
        "this kernel is {release}, and the programs need Linux 5.17 or later (bpf_loop): use the proxy tier \
         alone (leave out --interface), or a later kernel"
    )]
    TooOld {
        /// The running kernel.
        release: String,
    },
    /// The verifier refused a program.
    #[error("this kernel ({release}) refused the programs: {log}")]
    Refused {
        /// The running kernel.
        release: String,
        /// The end of the verifier's log.
        log: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No interface of a name that was given.
    #[error(
        "no interface is named {name:?}; there are: {known}. A glob (`{name}*`) may match later ones"
    )]
    NoInterface {
        /// The name.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// A malformed glob.
    #[error("--interface {glob:?} is no name and no glob: {what}")]
    BadGlob {
        /// As given.
        glob: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Frames of a kind that can't be judged.
    #[error("frames of interface {name:?} begin with neither an Ethernet nor an IP header")]
    BadLink {
        /// The interface.
        name: String,
    },
    /// An interface can't be attached to.
    #[error("can't attach to interface {name:?}")]
    Attach {
        /// The interface.
        name: String,
        /// What the kernel said.
        #[source]
        source: ProgramError,
    },
    /// The kernel tells nothing of interfaces.
    #[error("can't ask the kernel for its interfaces (rtnetlink)")]
    Netlink(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The network namespace can't be named.
    #[error("can't open this process's network namespace")]
    Netns(#[source] io::Error),
    /// What outlives the process can't be kept.
    #[error(
        "can't keep {} (it takes a BPF file system: `mount -t bpf bpf /sys/fs/bpf`)", path.display()
    )]
    Pin {
        /// Where it was to be kept.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What is to outlive the process can't be kept, or taken over.
    #[error(transparent)]
    PinDir(#[from] PinDirError),
    /// The CPUs can't be counted.
    #[error("can't tell how many CPUs there are")]
    Cpus(#[source] io::Error),
    /// The ring buffer can't be watched.
    #[error("can't watch the ring buffer of events")]
    Watch(#[source] io::Error),
    /// A map's memory can't be shared.
    #[error("the memory of a BPF map can't be shared with this process")]
    Share(#[source] io::Error),
    /// The system has no random numbers.
    #[error("no random numbers for the kernel programs: {0}")]
    Random(getrandom::Error),
    /// The tier is gone.
    #[error("the kernel tier is being stopped")]
    Stopping,
    /// Any other failure of the loader.
    #[error("can't load the kernel programs")]
    Load(#[source] EbpfError),
    /// Any other failure with a program.
    #[error("can't use a kernel program")]
    Program(#[source] ProgramError),
    /// A map operation failed.
    #[error("a BPF map operation failed")]
    Map(#[from] MapError),
}

/// Bytes of the verifier's log that a message shows.
const LOG_END: usize = 2000;

impl KernelError {
    pub(super) fn netlink(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Netlink(Box::new(error))
    }

    /// Says why the object could not be loaded.
    pub(super) fn from_load(error: EbpfError) -> Self {
        match permission(&error) {
            Some(source) => Self::Permission { source },
            None => Self::too_old().unwrap_or(Self::Load(error)),
        }
    }

    /// What to say of a kernel that refused something, where its version explains that. Asked for then alone: some
    /// distributions bring to their kernels what later versions have.
    fn too_old() -> Option<Self> {
        (!system::kernel_at_least(5, 17)).then(|| Self::TooOld {
            release: system::kernel_version(),
        })
    }

    /// Says why a program could not be loaded.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the loader's other errors are told as they are"
    )]
    pub(super) fn from_program(error: ProgramError) -> Self {
        if let Some(source) = permission(&error) {
            return Self::Permission { source };
        }
        if let Some(too_old) = Self::too_old() {
            return too_old;
        }
        let (io_error, verifier_log) = match error {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => (io_error, verifier_log),
            other => return Self::Program(other),
        };
        let log = verifier_log.to_string();
        let cut = log.len().saturating_sub(LOG_END);
        let start = (cut..log.len())
            .find(|at| log.is_char_boundary(*at))
            .unwrap_or(0);
        let log = log.get(start..).unwrap_or_default().to_owned();
        Self::Refused {
            release: system::kernel_version(),
            log,
            source: io_error,
        }
    }
}

/// `EPERM` somewhere among the causes: a refusal by the verifier has another error number.
fn permission(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io_error) = error.downcast_ref::<io::Error>()
            && io_error.raw_os_error() == Some(libc::EPERM)
        {
            return Some(io::Error::from_raw_os_error(libc::EPERM));
        }
        cause = error.source();
    }
    None
}

/// What was gone already is as good as removed.
pub(super) fn removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
