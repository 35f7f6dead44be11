//! Log lines on standard error, as text or JSON; each event becomes exactly one.

use std::io::{self, IsTerminal as _};

use jiff::Timestamp;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    cli::{LogFormat, LogLevel},
    counters::Counted,
    event::{Outcome, TokenSeen},
};

/// Lines that wait to be written; beyond them lines are dropped and counted, so that a reader of our standard
/// error who stops reading can't stop requests.
const BACKLOG: usize = 64 * 1024;

/// Writes the lines that wait when it is dropped.
pub struct Log {
    _guard: WorkerGuard,
    writer: NonBlocking,
}

impl Log {
    /// Logs to standard error from now on.
    ///
    /// # Errors
    /// Where this process logs already.
    pub fn start(
        format: LogFormat,
        level: LogLevel,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(BACKLOG)
            .thread_name("log")
            .finish(io::stderr());
        // Libraries may show what they parse when they are asked for details, so they are not.
        let level = LevelFilter::from(level);
        let others = level.min(LevelFilter::WARN);
        let filter = EnvFilter::new(format!("{others},tokenblock={level}"));
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(writer.clone());
        match format {
            LogFormat::Text => lines
                .with_ansi(io::stderr().is_terminal())
                .with_target(false)
                .try_init()?,
            LogFormat::Json => lines
                .json()
                .flatten_event(true)
                .with_target(false)
                .try_init()?,
        }
        Ok(Self {
            _guard: guard,
            writer,
        })
    }

    /// The counters of the log.
    #[must_use]
    pub fn counters(&self) -> Counted {
        let dropped = self.writer.error_counter().dropped_lines() as u64;
        vec![("dropped_lines".to_owned(), dropped)]
    }
}

/// Logs an event.
pub fn token_seen(event: &TokenSeen) {
    let message = match event.outcome {
        Outcome::Blocked => "compromised token blocked",
        Outcome::Alerted => "compromised token seen, not blocked",
    };
    // Out of range only for a clock that is thousands of years off.
    let time = Timestamp::try_from(event.time).unwrap_or(Timestamp::UNIX_EPOCH);
    tracing::warn!(
        time = %time,
        tier = %event.tier,
        source = %event.source,
        destination = %event.destination,
        location = %event.location,
        token = %event.token,
        action = %event.outcome,
        requests = event.requests,
        "{message}"
    );
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}
