//! Connections that have changed to another protocol (WebSocket): bytes both ways, unread.

use std::{io, rc::Rc};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};

use super::{accept::Worker, upstream::Lease};

/// Joins the client's connection to the upstream's, until one end closes both ways or the worker stops.
pub(super) fn spawn(worker: &Rc<Worker>, client: OnUpgrade, upstream: Lease) {
    let mut drain = worker.drain.clone();
    tokio::task::spawn_local(async move {
        tokio::select! {
            ended = join(client, upstream) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an upgraded connection broke");
                }
            }
            _ = drain.wait_for(|draining| *draining) => {}
        }
    });
}

async fn join(client: OnUpgrade, upstream: Lease) -> io::Result<()> {
    let mut client = TokioIo::new(client.await.map_err(io::Error::other)?);
    let Some(parts) = upstream.into_parts().await else {
        return Ok(());
    };
    client.write_all(&parts.read_buf).await?;
    let mut upstream = parts.io.into_inner();
    copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}
