//! Connections that have changed to another protocol (WebSocket): bytes both ways, unread.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    time::{Instant, sleep_until},
};
use tokio_util::io::InspectReader;

use super::{accept::Worker, counters::Closed, upstream::Lease};

/// Joins the client's connection to the upstream's, until one end closes both ways, nothing comes from either for too
/// long, or the worker stops.
pub(super) fn spawn(worker: &Rc<Worker>, client: OnUpgrade, upstream: Lease) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let mut drain = worker.drain.clone();
        let last = Cell::new(Instant::now());
        tokio::select! {
            ended = join(client, upstream, &last) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an upgraded connection broke");
                }
            }
            () = quiet(&last, worker.settings.timeouts.tunnel) => {
                worker.counters.close(Closed::TunnelTimeout);
            }
            _ = drain.wait_for(|draining| *draining) => {}
        }
    });
}

async fn join(client: OnUpgrade, upstream: Lease, last: &Cell<Instant>) -> io::Result<()> {
    let note = |_: &[u8]| last.set(Instant::now());
    let client = TokioIo::new(client.await.map_err(io::Error::other)?);
    let mut client = InspectReader::new(client, note);
    let Some(parts) = upstream.into_parts().await else {
        return Ok(());
    };
    client.write_all(&parts.read_buf).await?;
    let mut upstream = InspectReader::new(parts.io.into_inner(), note);
    copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

/// Runs until `last` is `limit` ago.
async fn quiet(last: &Cell<Instant>, limit: Duration) {
    loop {
        let deadline = last.get() + limit;
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
}
