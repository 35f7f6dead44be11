//! Debugging the programs: what they log by aya-log, where `--log-level debug` asks for it.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use tracing::{Level, debug, enabled, warn};

/// The level up to which the programs log, as aya-log counts; with 0 the verifier takes every such line out.
#[must_use]
pub fn level() -> u8 {
    const NOTHING: u8 = 0;
    if enabled!(Level::DEBUG) {
        log::Level::Debug as u8
    } else {
        NOTHING
    }
}

/// Brings the programs' log lines into the log.
pub struct ProgramLog(EbpfLogger<ToTracing>);

impl ProgramLog {
    /// The log of the programs in this object; `None` where they log nothing.
    #[must_use]
    pub fn take(ebpf: &mut Ebpf) -> Option<Self> {
        if level() == 0 {
            return None;
        }
        match EbpfLogger::init_with_logger(ebpf, ToTracing) {
            Ok(logger) => Some(Self(logger)),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the programs' log can't be read"
                );
                None
            }
        }
    }

    /// Logs what has come.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        debug!("programs: {}", record.args());
    }

    fn flush(&self) {}
}
