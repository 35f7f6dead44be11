//! The server's end: `accept -> peer -> desk`.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval},
};

use super::{
    counters::{ControlCounters, Counter},
    desk::{Access, Backing, Desk},
    peer,
    remote::{Remote, RemoteError},
    settings::ControlSettings,
    socket::{Socket, SocketError},
};

/// Connections at once; more wait.
const CONNECTIONS: usize = 32;
/// How often it is looked whether the socket is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The control socket, and the address where there is one, listening; [`Control::serve`] makes them answer.
pub struct Control {
    socket: Socket,
    group: Option<u32>,
    remote: Option<Remote>,
    desk: Arc<Desk>,
}

/// Why nobody can control it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// By the socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// By TCP.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl Control {
    /// Listens. Nothing is answered yet.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn bind(settings: &ControlSettings, backing: Backing) -> Result<Self, ControlError> {
        let remote = settings.remote.as_ref();
        Ok(Self {
            remote: remote.map(Remote::bind).transpose()?,
            socket: Socket::bind(settings)?,
            group: settings.group,
            desk: Arc::new(Desk::new(backing)),
        })
    }

    /// Where the API is served over TCP, if it is.
    #[must_use]
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.remote.as_ref().and_then(Remote::address)
    }

    /// What is counted; outlives [`Control::serve`].
    #[must_use]
    pub fn counters(&self) -> ControlCounters {
        self.desk.counters().clone()
    }

    /// Answers until dropped.
    pub async fn serve(self) -> Infallible {
        let local = accept(self.socket, self.group, Arc::clone(&self.desk));
        match self.remote {
            Some(remote) => tokio::select! {
                never = local => never,
                never = remote.serve(self.desk) => never,
            },
            None => local.await,
        }
    }
}

async fn accept(mut socket: Socket, group: Option<u32>, desk: Arc<Desk>) -> Infallible {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut again = interval(LOOK_AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = again.tick() => {
                socket.look();
                continue;
            }
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                desk.pause_after(&error).await;
                continue;
            }
        };
        desk.counters().add(Counter::LocalConnections);
        let access = Access::Local(peer::is_allowed(&stream, group));
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let _permit = permit;
            desk.converse(stream, access).await;
        });
    }
}
