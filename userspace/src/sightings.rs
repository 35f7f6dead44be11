//! How often, when and from where listed tokens were seen: `event -> actor -> table -> hits.redb`.
//!
//! Of tokens that were seen at least once, and of so many at most; what is under way is lost where there is no room
//! for it, so that no request ever waits.

mod counts;
mod store;
mod table;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

pub use self::table::{SOURCES, Sighting};
use self::{counts::Counts, store::Store, table::Table};
use crate::{counters::Counted, denylist::ShortTokenId, event::TokenSeen};

/// Bulks of events, and questions, that wait to be taken in.
const WAITING: usize = 1024;
/// What was seen is on disk this long after.
const LAZY: Duration = Duration::from_secs(5);
/// Longest wait for what was seen to be on disk at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the tokens that were seen; clones share it.
#[derive(Clone)]
pub struct Sightings {
    to: mpsc::Sender<Message>,
    counts: Arc<Counts>,
}

enum Message {
    Seen(Vec<TokenSeen>),
    Asked(Vec<ShortTokenId>, oneshot::Sender<Vec<Option<Sighting>>>),
    Flush(oneshot::Sender<()>),
}

/// Takes in what is seen, one after the other.
struct Actor {
    table: Table,
    store: Option<Store>,
    counts: Arc<Counts>,
}

impl Sightings {
    /// Goes on from what the state folder, which this process has locked, has of earlier runs. What can't be used of
    /// it is set aside, and told: nothing that is enforced depends on it.
    ///
    /// Needs a runtime.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let counts = Arc::new(Counts::default());
        let (store, table) = match Store::open(folder) {
            Ok((store, table)) => (Some(store), table),
            Err(error) => {
                tracing::warn!("{error:#}; hits are counted from now on, and not kept");
                (None, Table::default())
            }
        };
        let (to, from) = mpsc::channel(WAITING);
        let actor = Actor {
            table,
            store,
            counts: Arc::clone(&counts),
        };
        tokio::spawn(actor.work(from));
        Self { to, counts }
    }

    /// Takes events in; those for which there is no room are lost.
    pub fn take(&self, events: Vec<TokenSeen>) {
        let requests = events.iter().map(|event| event.requests).sum();
        if self.to.try_send(Message::Seen(events)).is_err() {
            self.counts.lose(requests);
        }
    }

    /// What is known of each of these tokens.
    pub async fn of(&self, tokens: Vec<ShortTokenId>) -> Vec<Option<Sighting>> {
        let (reply, answer) = oneshot::channel();
        let unknown = vec![None; tokens.len()];
        if self.to.send(Message::Asked(tokens, reply)).await.is_err() {
            return unknown;
        }
        answer.await.unwrap_or(unknown)
    }

    /// Waits until all that was seen so far is on disk, but not for long.
    pub async fn flush(&self) {
        let (reply, done) = oneshot::channel();
        let flushed = async {
            self.to.send(Message::Flush(reply)).await.ok()?;
            done.await.ok()
        };
        if timeout(PATIENCE, flushed).await.is_err() {
            tracing::warn!("the last hits are not on disk");
        }
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Counted {
        self.counts.read()
    }
}

impl Actor {
    async fn work(mut self, mut from: mpsc::Receiver<Message>) {
        let mut ticks = interval(LAZY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = from.recv() => match message {
                    Some(Message::Seen(events)) => {
                        for event in &events {
                            let forgotten = self.table.see(event);
                            self.counts.see(event.requests, forgotten);
                        }
                    }
                    Some(Message::Asked(tokens, reply)) => {
                        let known = tokens.into_iter().map(|token| self.table.get(token).cloned());
                        // Who asked may be gone.
                        let _heard = reply.send(known.collect());
                    }
                    Some(Message::Flush(reply)) => {
                        self = self.store().await;
                        let _heard = reply.send(());
                    }
                    None => return,
                },
                _ = ticks.tick() => self = self.store().await,
            }
        }
    }

    /// Brings to disk what has changed; what the disk doesn't take is tried again.
    async fn store(mut self) -> Self {
        if !self.table.has_changed() {
            return self;
        }
        let Some(mut store) = self.store.take() else {
            return self;
        };
        let changes = self.table.take_changes();
        let written = spawn_blocking(move || {
            let result = store.write(&changes);
            (store, changes, result)
        });
        match written.await {
            Ok((store, _, Ok(()))) => {
                self.counts.store();
                self.store = Some(store);
            }
            Ok((store, changes, Err(error))) => {
                if self.counts.fail() {
                    tracing::warn!("{error:#}; hits are kept in memory, and tried again");
                }
                self.table.changes_lost(changes);
                self.store = Some(store);
            }
            Err(error) => tracing::error!(%error, "hits are no longer kept"),
        }
        self
    }
}
