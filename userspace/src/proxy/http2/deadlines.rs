//! What the upstreams owe to the streams of one connection, and the one timer for it.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// The streams that wait; the places of those that are gone are for the next.
#[derive(Default)]
struct Waiting(Vec<Option<Note>>);

/// When to wake a stream; nobody, once it was woken.
struct Note {
    deadline: Instant,
    waker: Option<Waker>,
}

/// Wakes the streams of a connection that have waited for too long.
pub(super) struct Deadlines {
    waiting: Rc<RefCell<Waiting>>,
    timer: Pin<Box<Sleep>>,
    /// Whether the timer is set.
    armed: bool,
}

/// One stream's note; taken back when dropped.
pub(super) struct Deadline {
    waiting: Rc<RefCell<Waiting>>,
    /// Where, and for which deadline.
    noted: Option<(usize, Instant)>,
}

impl Deadlines {
    /// Nobody waits.
    pub(super) fn new() -> Self {
        Self {
            waiting: Rc::default(),
            timer: Box::pin(sleep_until(Instant::now())),
            armed: false,
        }
    }

    /// For one more stream.
    pub(super) fn one(&self) -> Deadline {
        Deadline {
            waiting: Rc::clone(&self.waiting),
            noted: None,
        }
    }

    /// Wakes those who have waited for too long; asks to be called again when the next will have.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        loop {
            if !self.armed {
                let Some(first) = self.waiting.borrow().first() else {
                    return;
                };
                self.timer.as_mut().reset(first);
                self.armed = true;
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.armed = false;
            self.waiting.borrow_mut().wake_late(Instant::now());
        }
    }
}

impl Waiting {
    fn first(&self) -> Option<Instant> {
        let notes = self.0.iter().flatten();
        let to_wake = notes.filter(|note| note.waker.is_some());
        to_wake.map(|note| note.deadline).min()
    }

    fn wake_late(&mut self, now: Instant) {
        let notes = self.0.iter_mut().flatten();
        for note in notes.filter(|note| note.deadline <= now) {
            if let Some(waker) = note.waker.take() {
                waker.wake();
            }
        }
    }

    fn put(&mut self, note: Note) -> usize {
        if let Some((index, slot)) = self.0.iter_mut().enumerate().find(|(_, s)| s.is_none()) {
            *slot = Some(note);
            return index;
        }
        self.0.push(Some(note));
        self.0.len() - 1
    }
}

impl Deadline {
    /// Ready once it is later than that.
    pub(super) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let is_noted = |(_, noted): &(usize, Instant)| *noted == deadline;
        if self.noted.as_ref().is_some_and(is_noted) {
            let late = deadline <= Instant::now();
            return if late { Poll::Ready(()) } else { Poll::Pending };
        }
        self.forget();
        let waker = Some(cx.waker().clone());
        let slot = self.waiting.borrow_mut().put(Note { deadline, waker });
        self.noted = Some((slot, deadline));
        Poll::Pending
    }

    fn forget(&mut self) {
        if let Some((slot, _)) = self.noted.take()
            && let Some(slot) = self.waiting.borrow_mut().0.get_mut(slot)
        {
            *slot = None;
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.forget();
    }
}
