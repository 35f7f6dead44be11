//! A token that is typed: never shown, and the terminal is left as it was found.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write as _},
};

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal},
    signalfd::SignalFd,
};
use rpassword::ConfigBuilder;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
    termios::{
        LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, tcflush, tcgetattr,
        tcsetattr,
    },
};
use zeroize::Zeroizing;

/// What would leave a silent terminal behind if it ended or stopped the process at once.
const HELD: [Signal; 5] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
];

/// Asks for one line on the terminal of this process. A signal does what it always does, once the terminal is as it was;
/// who goes on after Ctrl-Z is asked again.
///
/// # Errors
/// Where there is no terminal, or no more of it.
pub(super) fn ask(question: &str) -> io::Result<Zeroizing<String>> {
    loop {
        match ask_once(question) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

fn ask_once(question: &str) -> io::Result<Zeroizing<String>> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    // Let go of in the reverse order.
    let signals = HeldSignals::take()?;
    let _silent = Silent::make(&terminal)?;
    // What was typed before is on the screen, and may have been meant for something else.
    tcflush(&terminal, QueueSelector::IFlush)?;
    (&terminal).write_all(question.as_bytes())?;
    let keys = Keys {
        terminal: terminal.try_clone()?,
        signals: SignalFd::new(&signals.held)?,
    };
    let config = ConfigBuilder::new().input_reader(keys).output_discard();
    let typed = rpassword::read_password_with_config(config.build()).map(Zeroizing::new);
    (&terminal).write_all(b"\n")?;
    typed
}

/// [`HELD`] wait until this is dropped. The process has no other thread while it asks.
struct HeldSignals {
    held: SigSet,
    before: SigSet,
}

impl HeldSignals {
    fn take() -> io::Result<Self> {
        let held: SigSet = HELD.into_iter().collect();
        let before = held.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { held, before })
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // Fails for no mask that was read.
        let _let_go = self.before.thread_set_mask();
    }
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    /// Line by line it would cut what is longer than 4,095 bytes, so it gives each key.
    fn make(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Now, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // More lines of what was pasted would be shown now, and run by a shell. The terminal may have gone.
        let _flushed = tcflush(self.terminal, QueueSelector::IFlush);
        let _restored = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// What is typed, until one of the held signals comes.
struct Keys {
    terminal: File,
    signals: SignalFd,
}

impl Read for Keys {
    fn read(&mut self, keys: &mut [u8]) -> io::Result<usize> {
        let mut ready = [
            PollFd::new(&self.terminal, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut ready, None))?;
        // Left to be delivered.
        if ready[1].revents().contains(PollFlags::IN) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match self.terminal.read(keys)? {
            // Else what was typed so far would be taken for a token.
            0 => Err(io::Error::other("the terminal has gone")),
            length => Ok(length),
        }
    }
}
