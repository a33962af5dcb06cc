//! The threads of the room: a tokio runtime that no other room sees.
//!
//! Every call from outside blocks its own thread and lets the two workers move the bytes. Nothing
//! that owns the runtime may be moved into a task: dropping it there would panic.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tracing::debug;

use crate::registry::Error;
use crate::registry::Result;

const WORKERS: usize = 2;

/// The runtime, which ends without waiting for what still runs.
#[derive(Debug)]
pub(super) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// Starts the threads, and sets up what TLS needs in the whole process.
    pub(super) fn start() -> Result<Self> {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            // The first provider stays: it is this one, or one that the program chose before.
            debug!("a TLS provider is installed already");
        }
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("registry")
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
            .map_err(|source| Error::Threads { source })
    }

    /// Runs `future` to its end.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.inner().block_on(future)
    }

    /// Runs `future` to its end, or gives up after `limit`.
    pub(super) fn within<F: Future>(
        &self,
        limit: Duration,
        future: F,
    ) -> std::result::Result<F::Output, Elapsed> {
        // The timer needs the runtime around it when it is made.
        self.block_on(async { tokio::time::timeout(limit, future).await })
    }

    /// Starts `future` on the workers.
    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.inner().spawn(future)
    }

    const fn inner(&self) -> &tokio::runtime::Runtime {
        self.0.as_ref().expect("the runtime is taken only when it is dropped")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A name look-up cannot be interrupted; waiting for it would delay the end of strata.
            runtime.shutdown_background();
        }
    }
}
