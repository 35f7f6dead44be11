//! The origin: a real web server that remembers what it was asked.

use std::{
    convert::Infallible,
    future::ready,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use super::lab::Namespace;

type Paths = Arc<Mutex<Vec<String>>>;

/// The running server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    paths: Paths,
    task: JoinHandle<()>,
}

impl Origin {
    /// Listens inside the namespace, on every address.
    ///
    /// # Errors
    /// Where the port can't be had.
    pub(crate) fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let listener = namespace.inside(|| {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
                .with_context(|| format!("listening on port {port}"))
        })?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let paths = Paths::default();
        let task = tokio::spawn(serve(listener, Arc::clone(&paths)));
        Ok(Self { paths, task })
    }

    /// Paths of the requests that reached the application, in order.
    pub(crate) fn seen(&self) -> Vec<String> {
        let paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: tokio::net::TcpListener, paths: Paths) {
    while let Ok((stream, _client)) = listener.accept().await {
        let paths = Arc::clone(&paths);
        let answer =
            service_fn(move |request| ready(Ok::<_, Infallible>(answer(&request, &paths))));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

fn answer(request: &Request<Incoming>, paths: &Paths) -> Response<Full<Bytes>> {
    let mut paths = paths.lock().unwrap_or_else(PoisonError::into_inner);
    paths.push(request.uri().path().to_owned());
    Response::new(Full::from("the application's answer\n"))
}
