//! A token that is typed on a terminal: what is shown there, and how the terminal is left.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    mem,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Signal, kill_process},
    termios::{Action, LocalModes, SpecialCodeIndex, tcflow, tcgetattr, tcgetpgrp},
};

use crate::support::{Host, PATIENCE, terminal};

const LEAKED: &str = "leaked-token-0000001";
const QUESTION: &str = "Token: ";

/// Who sits at a terminal whose shell runs `tokenblock deny add`, and once more goes on with it where it was stopped.
struct Person {
    /// What is shown and typed.
    screen: File,
    /// What the shell and the command have.
    end: File,
    shell: Option<Child>,
    seen: String,
}

impl Person {
    fn new() -> Self {
        let (screen, end) = terminal();
        Self {
            screen,
            end,
            shell: None,
            seen: String::new(),
        }
    }

    fn starts(&mut self, host: &Host) {
        let script = r#"set -m; trap : INT; "$@"; echo "ended $?"; fg; echo "ended $?"; read _"#;
        // A session of its own, whose terminal that is.
        let mut command = Command::new("setsid");
        let command = host.set(&mut command);
        command.args(["--ctty", "sh", "-c", script, "sh"]);
        command.args([env!("CARGO_BIN_EXE_tokenblock"), "deny", "add"]);
        let end = || self.end.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end());
        self.shell = Some(command.spawn().unwrap());
    }

    fn types(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is shown; gives all from the last time to there.
    fn sees(&mut self, what: &str) -> String {
        let mut piece = [0; 1024];
        loop {
            if let Some(at) = self.seen.find(what) {
                let rest = self.seen.split_off(at + what.len());
                return mem::replace(&mut self.seen, rest);
            }
            let mut ready = [PollFd::new(&self.screen, PollFlags::IN)];
            let patience = Timespec::try_from(PATIENCE).unwrap();
            let shown = poll(&mut ready, Some(&patience)).unwrap();
            assert_eq!(shown, 1, "no {what}: {}", self.seen);
            let length = self.screen.read(&mut piece).unwrap();
            self.seen
                .push_str(str::from_utf8(&piece[..length]).unwrap());
        }
    }

    /// What is typed is shown, line by line, and Ctrl-C interrupts: the terminal is as any.
    fn terminal_is_usual(&self) -> bool {
        let usual = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        let now = tcgetattr(&self.screen).unwrap();
        now.local_modes.contains(usual) && now.special_codes[SpecialCodeIndex::VEOF] == 4
    }

    fn terminal_is_silent(&self) -> bool {
        let now = tcgetattr(&self.screen).unwrap();
        !now.local_modes.contains(LocalModes::ECHO)
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            // It may have ended.
            let _killed = shell.kill();
            let _reaped = shell.wait();
        }
    }
}

#[test]
fn a_token_is_asked_for_on_a_terminal_and_not_shown_there() {
    let host = Host::new();
    let running = host.start(&[]);
    let mut person = Person::new();
    person.types("meant-for-something-else\n");
    person.sees("meant-for-something-else");
    // The question can't be shown now, and nothing is shown from before it on.
    tcflow(&person.end, Action::OOff).unwrap();
    person.starts(&host);
    let since = Instant::now();
    while !person.terminal_is_silent() {
        assert!(since.elapsed() < PATIENCE, "it asks before it is silent");
        thread::sleep(Duration::from_millis(1));
    }
    tcflow(&person.end, Action::OOn).unwrap();
    person.sees(QUESTION);
    person.types(&format!("{LEAKED}\nmore-that-was-pasted\n"));
    let shown = person.sees("ended 0\r\n");
    assert!(shown.contains("added "), "{shown}");
    for hidden in [LEAKED, "more-that-was-pasted", "warning"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert!(person.terminal_is_usual());
    assert!(running.blocks(LEAKED));
    assert_eq!(host.added().len(), 1);
}

#[test]
fn a_token_longer_than_a_line_of_a_terminal_is_taken_whole() {
    let host = Host::new();
    let running = host.start(&[]);
    let mut person = Person::new();
    person.starts(&host);
    person.sees(QUESTION);
    let parts: Vec<_> = (1..900_u32)
        .map(|n| format!("{:08x}", n * 4_000_037))
        .collect();
    let long = parts.concat();
    person.types(&format!("{long}\r"));
    let shown = person.sees("ended 0");
    assert!(
        shown.contains("added ") && !shown.contains(&parts[0]),
        "{shown}"
    );
    assert!(running.blocks(&long));
}

#[test]
fn a_terminal_is_as_it_was_after_a_signal_at_the_question() {
    let host = Host::new();
    let after = |signal: &dyn Fn(&mut Person), ended| {
        let mut person = Person::new();
        person.starts(&host);
        person.sees(QUESTION);
        person.types("half-a-token");
        signal(&mut person);
        let shown = person.sees(ended);
        assert!(!shown.contains("half"), "{shown}");
        assert!(person.terminal_is_usual(), "{ended}");
    };
    after(&|person| person.types("\x03"), "ended 130");
    let terminate = |person: &mut Person| {
        let command = tcgetpgrp(&person.screen).unwrap();
        kill_process(command, Signal::TERM).unwrap();
    };
    after(&terminate, "ended 143");
}

#[test]
fn who_stops_it_at_the_question_is_asked_again() {
    let host = Host::new();
    let running = host.start(&[]);
    let mut person = Person::new();
    person.starts(&host);
    person.sees(QUESTION);
    person.types("half-a-token\x1a");
    // The shell goes on with it at once.
    person.sees("ended 148");
    person.sees(QUESTION);
    assert!(person.terminal_is_silent());
    person.types(&format!("{LEAKED}\n"));
    let shown = person.sees("ended 0");
    assert!(!shown.contains(LEAKED), "{shown}");
    assert!(person.terminal_is_usual());
    assert!(running.blocks(LEAKED));
}
