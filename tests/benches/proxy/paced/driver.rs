//! One thread's part: sends what is due, takes what has come.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::event::epoll;

use super::{Waits, connection::Connection, microseconds, schedule::Schedule};

/// The longest that the last answers are waited for.
const END: Duration = Duration::from_secs(5);

/// One thread's connections.
pub(super) struct Driver {
    connections: Vec<Connection>,
    epoll: std::os::fd::OwnedFd,
    /// Connections that take another request, in turns; once for each.
    free: VecDeque<usize>,
    /// Requests that wait for one.
    due: VecDeque<Instant>,
    open: usize,
}

impl Driver {
    pub(super) fn new(connections: Vec<Connection>, streams: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (n, connection) in connections.iter().enumerate() {
            let data = epoll::EventData::new_u64(n as u64);
            epoll::add(&epoll, connection.socket(), data, epoll::EventFlags::IN)?;
        }
        let free = (0..streams).flat_map(|_| 0..connections.len()).collect();
        Ok(Self {
            connections,
            epoll,
            free,
            due: VecDeque::new(),
            open: 0,
        })
    }

    /// Sends what is due until `end`; counts what was due from `begin` on.
    pub(super) fn drive(
        &mut self,
        mut schedule: Schedule,
        begin: Instant,
        end: Instant,
    ) -> Result<Waits> {
        let mut waits = Waits::default();
        let mut done = Vec::new();
        loop {
            let now = Instant::now();
            while schedule.next <= now && schedule.next < end {
                if schedule.next >= begin {
                    waits.late.push(microseconds(now - schedule.next));
                }
                self.due.push_back(schedule.next);
                schedule.step();
            }
            self.send()?;
            self.receive(&mut done)?;
            if !done.is_empty() {
                let now = Instant::now();
                let counted = done.drain(..).filter(|due| *due >= begin);
                waits
                    .answered
                    .extend(counted.map(|due| microseconds(now - due)));
            }
            if schedule.next >= end && self.due.is_empty() && self.open == 0 {
                return Ok(waits);
            }
            ensure!(
                now < end + END,
                "{} requests without an answer",
                self.open + self.due.len()
            );
        }
    }

    fn send(&mut self) -> Result<()> {
        while !self.due.is_empty()
            && let Some(n) = self.free.pop_front()
        {
            let connection = self.connections.get_mut(n).context("no such connection")?;
            let due = self.due.pop_front().context("nothing is due")?;
            connection.send(due)?;
            self.open += 1;
        }
        Ok(())
    }

    /// Takes what answers there are.
    fn receive(&mut self, done: &mut Vec<Instant>) -> Result<()> {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 16];
        let ready = epoll::wait(
            &self.epoll,
            &mut events[..],
            Some(&rustix::time::Timespec::default()),
        )?;
        for event in events.iter().take(ready) {
            let n = usize::try_from(event.data.u64())?;
            let connection = self.connections.get_mut(n).context("no such connection")?;
            let before = done.len();
            connection.receive(done)?;
            let answered = done.len() - before;
            self.open -= answered;
            self.free.extend(std::iter::repeat_n(n, answered));
        }
        Ok(())
    }
}
