//! Serving a connection by one process after the other: what a server that has died has left
//! unanswered the kernel asks the next one.
//!
//! The connection, the notes of the overlay and the desks of the threads belong to the process that
//! forks the servers (the holder). Each server gets them as they were before the first, and knows from
//! notes and desks what has happened since.

use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;

use crate::fuse::desk::Desks;
use crate::fuse::error::{Error, Result};
use crate::fuse::ops::History;
use crate::fuse::options::{Data, Transport};
use crate::fuse::serve;
use crate::fuse::session::{Connection, Mount};
use crate::overlay::{Notes, Overlay};
use crate::sys::Looker;

/// A connection that servers share which come one after the other.
#[derive(Debug)]
pub struct Shared {
    connection: Connection,
    desks: Arc<Desks>,
    notes: Arc<Notes>,
    /// Who looks whether the mount answers, as long as nobody has.
    looker: Option<Looker>,
}

impl Shared {
    /// Makes a connection one that servers share. To be called before the first is forked.
    pub(crate) fn new(
        connection: Connection,
        overlay: &mut Overlay,
        looker: Option<Looker>,
    ) -> Result<Self> {
        let desks = Arc::new(Desks::new(serve::reader_count())?);
        let notes = Arc::new(Notes::new()?);
        overlay.keep_notes(Arc::clone(&notes));
        Ok(Self { connection, desks, notes, looker })
    }

    /// Returns where the tree is mounted.
    pub fn target(&self) -> &Path {
        self.connection.target()
    }

    /// Returns how requests come.
    pub const fn transport(&self) -> Transport {
        Transport::DevFuse
    }

    /// Returns how contents get to programs.
    pub const fn data(&self) -> Data {
        Data::Cache
    }

    /// Returns who looks whether a new mount answers.
    pub const fn take_looker(&mut self) -> Option<Looker> {
        self.looker.take()
    }

    /// Returns the descriptors that servers have left for those after them.
    pub fn left_open(&self) -> impl Iterator<Item = i32> {
        self.notes.descriptors()
    }

    /// Returns how many requests all servers have answered.
    pub fn answered(&self) -> u64 {
        self.desks.answered()
    }

    /// Serves in this process, after others. `has_failed` says that the last one has died of itself.
    /// `may_begin` is asked when only that is left. Nothing that is open is closed, also on an error: with one
    /// table of open files for all, no later server would have it.
    pub fn serve(
        self,
        overlay: Overlay,
        has_failed: bool,
        may_begin: impl FnOnce() -> bool,
    ) -> Result<Option<Mount>> {
        let Self { connection, desks, .. } = self;
        let connection = ManuallyDrop::new(connection);
        let mut overlay = ManuallyDrop::new(overlay);
        overlay.begin()?;
        let servers = overlay.servers();
        desks.begin(servers, has_failed);
        let history = if servers == 0 { History::Begins } else { History::GoesOn };
        let shape = connection.shape();
        let connection = ManuallyDrop::into_inner(connection);
        let (requests, device) = connection.served(ManuallyDrop::into_inner(overlay), history)?;
        std::mem::forget((Arc::clone(&requests), Arc::clone(&device)));
        if !may_begin() {
            return Ok(None);
        }
        if history == History::GoesOn {
            serve::forget_again(&requests, &desks);
            device.ask_again().map_err(Error::Session)?;
        }
        let serving = serve::begin_at((requests, device), &desks)?;
        Ok(Some(Mount::shared(shape, serving)))
    }
}
