//! All entries, one JSON object a line: additions from the database, then those of the files, sent while they are read.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    api::{EntryAnswer, ErrorAnswer},
    desk::{Answer, Desk, LONGEST_PAGE},
};
use crate::{keeper::Request, wiping::spawn_wiped};

/// Chunks that wait for the client.
const WAITING: usize = 4;
/// Entries of a chunk.
const CHUNK: usize = 1000;

/// Sends all entries, or those that were added.
pub(super) fn export(desk: &Arc<Desk>, files: bool) -> Response<Answer> {
    let (to, from) = mpsc::channel(WAITING);
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        // The client may be gone.
        let _sent = send_all(&desk, files, &to).await;
    });
    let chunks = stream::unfold(from, |mut from| async {
        let chunk: Bytes = from.recv().await?;
        Some((Ok(Frame::data(chunk)), from))
    });
    let mut response = Response::new(StreamBody::new(chunks).boxed());
    let lines = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, lines);
    response
}

/// `None` where nobody listens any more.
async fn send_all(desk: &Desk, files: bool, to: &mpsc::Sender<Bytes>) -> Option<()> {
    let mut after = None;
    loop {
        let page = desk.ask(|reply| Request::List(after, LONGEST_PAGE, reply));
        let (page, next) = match page.await {
            Ok(page) => page,
            Err(refusal) => {
                let error = refusal.to_string();
                return to
                    .send(lines(&[ErrorAnswer { error, index: None }]))
                    .await
                    .ok();
            }
        };
        let mut entries: Vec<_> = page.into_iter().map(EntryAnswer::from).collect();
        desk.sight(&mut entries).await;
        to.send(lines(&entries)).await.ok()?;
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if files {
        send_files(desk, to).await?;
    }
    Some(())
}

async fn send_files(desk: &Desk, to: &mpsc::Sender<Bytes>) -> Option<()> {
    let (chunks, mut read) = mpsc::channel::<Vec<EntryAnswer>>(WAITING);
    let files = desk.files().clone();
    let reading = spawn_wiped(move || {
        let mut chunk = Vec::with_capacity(CHUNK);
        let refused = files.each(|entry| {
            chunk.push(entry);
            if chunk.len() < CHUNK {
                return ControlFlow::Continue(());
            }
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
            match chunks.blocking_send(full) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_gone) => ControlFlow::Break(()),
            }
        });
        // The client may be gone.
        let _sent = chunks.blocking_send(chunk);
        refused
    });
    while let Some(mut entries) = read.recv().await {
        desk.sight(&mut entries).await;
        to.send(lines(&entries)).await.ok()?;
    }
    let refused = reading.await.ok()?.into_iter();
    let refused: Vec<_> = refused
        .map(|error| ErrorAnswer {
            error: error.to_string(),
            index: None,
        })
        .collect();
    to.send(lines(&refused)).await.ok()
}

fn lines(answers: &[impl Serialize]) -> Bytes {
    let mut text = Vec::new();
    for answer in answers {
        // Strings and numbers can't fail to be JSON, nor memory to be written to.
        if serde_json::to_writer(&mut text, answer).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}
