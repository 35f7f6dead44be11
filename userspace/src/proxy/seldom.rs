//! What a task waits for besides its work, and what hardly ever comes: time limits, the order to stop.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// A future that is polled when it was woken itself, and not each time that its task is polled for something else.
pub(super) struct Seldom<'f, F> {
    future: Pin<&'f mut F>,
    bell: Arc<Bell>,
    /// Rings the bell.
    rope: Waker,
    /// Who hears it.
    hearer: Waker,
}

struct Bell {
    is_rung: AtomicBool,
    /// Who is woken; the lock is held by who wakes, and by a task that has got another waker.
    hearer: Mutex<Waker>,
}

impl Bell {
    fn hearer(&self) -> MutexGuard<'_, Waker> {
        self.hearer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_rung.store(true, Ordering::Release);
        self.hearer().wake_by_ref();
    }
}

impl<'f, F: Future> Seldom<'f, F> {
    /// It is polled once for the beginning.
    pub(super) fn new(future: Pin<&'f mut F>) -> Self {
        let bell = Arc::new(Bell {
            is_rung: AtomicBool::new(true),
            hearer: Mutex::new(Waker::noop().clone()),
        });
        Self {
            future,
            rope: Waker::from(Arc::clone(&bell)),
            bell,
            hearer: Waker::noop().clone(),
        }
    }
}

impl<F: Future> Future for Seldom<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !this.hearer.will_wake(cx.waker()) {
            // Before the bell is looked at: what rings it from now on wakes the right one.
            this.hearer.clone_from(cx.waker());
            this.bell.hearer().clone_from(cx.waker());
        }
        // Usually it is not rung, and a look costs less than a swap.
        if !this.bell.is_rung.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        this.bell.is_rung.swap(false, Ordering::Acquire);
        this.future
            .as_mut()
            .poll(&mut Context::from_waker(&this.rope))
    }
}

/// Has the task polled once more, from its start.
pub(super) async fn once_more() {
    let mut is_told = false;
    std::future::poll_fn(|cx| {
        if is_told {
            return Poll::Ready(());
        }
        is_told = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, pin::pin, time::Duration};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_only_then() {
        let (polls, told, begun) = (Cell::new(0), Notify::new(), Notify::new());
        let mut told_twice = pin!(async {
            told.notified().await;
            begun.notify_one();
            told.notified().await;
        });
        let counted = pin!(std::future::poll_fn(|cx| {
            polls.set(polls.get() + 1);
            told_twice.as_mut().poll(cx)
        }));
        let mut seldom = Seldom::new(counted);
        let work = async {
            for _ in 0..10 {
                once_more().await;
            }
            assert_eq!(polls.get(), 1);
            told.notify_one();
            begun.notified().await;
            assert_eq!(polls.get(), 2);
            told.notify_one();
            std::future::pending::<()>().await;
        };
        let both = async {
            tokio::select! {
                biased;
                () = work => {}
                () = &mut seldom => {}
            }
        };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, both).await.unwrap();
        assert_eq!(polls.get(), 3);
    }
}
