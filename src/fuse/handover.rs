//! One server in the place of another that lives: what they agree on, and in which order.
//!
//! The new one makes ready all that can go wrong. Then the old one stops between two requests and says
//! what it knows (`overlay::Carried`); the new one goes on, and the old one ends. Until then the old one
//! can go on as if nothing had been. Of io_uring the old one has slots still that wait for a request.
//! It leaves each when one comes, unanswered.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fuse::abi::init;
use crate::fuse::error::{Error, Result};
use crate::fuse::ops::History;
use crate::fuse::options::Data;
use crate::fuse::rings::{Rings, SharedSlot, SlotPlace};
use crate::fuse::serve::{Serving, Work};
use crate::fuse::session::{Connection, Mount, Shape};
use crate::fuse::survive::Shared;
use crate::overlay::{Carried, Overlay};

/// The form of an agreement.
const VERSION: u32 = 1;

/// What was agreed on when a tree was mounted, and by what the next server reaches the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    version: u32,
    target: PathBuf,
    /// What the kernel and the server can do: flags of INIT.
    agreed: u64,
    /// How long the kernel may believe what it is told.
    valid_seconds: u64,
    valid_nanoseconds: u32,
    /// Whether files have access control lists.
    acl: bool,
    /// Slots of the server.
    slots: Vec<SlotPlace>,
    /// How many servers there were, this one included.
    servers: u64,
}

impl Agreement {
    /// Returns how many descriptors go with it: the device, and the memory of each slot.
    pub const fn descriptors(&self) -> usize {
        1 + self.slots.len()
    }

    /// Returns the processors that slots belong to, one for each slot.
    pub fn processors(&self) -> Vec<u16> {
        self.slots.iter().map(|slot| slot.queue()).collect()
    }

    /// Returns how many servers there were.
    pub const fn servers(&self) -> u64 {
        self.servers
    }
}

/// A server as the process sees it that is to go on in its place.
#[derive(Debug)]
pub struct Server {
    work: Work,
    slots: Vec<SharedSlot>,
    left: Receiver<usize>,
    shape: Shape,
}

impl Server {
    pub(crate) fn new(shape: Shape, serving: &mut Serving) -> Self {
        let (work, slots) = (serving.work.clone(), std::mem::take(&mut serving.slots));
        let (_, nobody) = std::sync::mpsc::channel();
        let left = std::mem::replace(&mut serving.left, nobody);
        Self { work, slots, left, shape }
    }

    /// Returns what was agreed on.
    pub fn agreement(&self) -> Agreement {
        let Shape { target, agreed, valid, acl, .. } = self.shape.clone();
        Agreement {
            version: VERSION,
            target,
            agreed,
            valid_seconds: valid.as_secs(),
            valid_nanoseconds: valid.subsec_nanos(),
            acl,
            slots: self.slots.iter().map(|slot| slot.place).collect(),
            servers: self.overlay().servers() + 1,
        }
    }

    /// Returns how contents get to programs.
    pub const fn data(&self) -> Data {
        self.shape.data
    }

    /// Returns the descriptors that go with that.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let slots = self.slots.iter().map(|slot| slot.file.as_fd());
        std::iter::once(self.work.device.as_fd()).chain(slots).collect()
    }

    /// Returns the tree.
    pub fn overlay(&self) -> &Overlay {
        self.work.requests.overlay()
    }

    /// Stops between two requests, and returns what the next server must know.
    pub fn stop(&self) -> Result<Carried> {
        self.work.gate.close()?;
        Ok(self.overlay().carried()?)
    }

    /// Goes on after [`Server::stop`].
    pub fn go_on(&self) {
        self.work.gate.open();
    }

    /// Ends after [`Server::stop`]; slots are left as requests come.
    pub fn end(&self) {
        self.work.gate.end();
    }

    /// Returns the number of a slot that was left, with a request for the next server; none if there was
    /// none for so long.
    pub fn next_left(&self, longest: Duration) -> Option<usize> {
        self.left.recv_timeout(longest).ok()
    }

    /// Returns how many slots there are to be left.
    pub const fn slots(&self) -> usize {
        self.slots.len()
    }
}

/// A connection that another process has made, ready to go on with it.
#[derive(Debug)]
pub struct TakenOver {
    connection: Connection,
    rings: Option<Rings>,
}

/// Makes ready to go on with a connection that another process serves. `statfs_of` is on the file system
/// whose state a tree without an upper shows.
///
/// # Errors
/// [`Error::Unknown`] when the other process is of a version that this one does not understand.
pub fn take_over(
    agreement: &Agreement,
    descriptors: Vec<OwnedFd>,
    statfs_of: OwnedFd,
) -> Result<TakenOver> {
    let Agreement { version, target, agreed, valid_seconds, valid_nanoseconds, acl, slots, .. } =
        agreement;
    if *version != VERSION {
        return Err(Error::Unknown(format!("its agreement has version {version}")));
    }
    let valid = Duration::new(*valid_seconds, *valid_nanoseconds);
    // Files that the kernel reads and writes itself are not handed over.
    let (target, agreed, data) = (target.clone(), *agreed, Data::Cache);
    let shape = Shape { target, agreed, valid, acl: *acl, data };
    let mut descriptors = descriptors.into_iter();
    let device = descriptors.next().ok_or_else(|| Error::Unknown("there is no device".into()))?;
    let rings = match agreed & init::OVER_IO_URING {
        0 => None,
        _ => Some(Rings::take_over(slots.iter().copied().zip(descriptors).collect())?),
    };
    Ok(TakenOver { connection: Connection::taken_over(shape, device, statfs_of), rings })
}

impl TakenOver {
    /// Begins to serve, when the other process has stopped and the tree has what it has carried.
    pub fn serve(self, overlay: Overlay) -> Result<Mount> {
        self.connection.begin(overlay, self.rings, History::GoesOn)
    }

    /// Makes it one that servers share which come one after the other, as it was before.
    pub fn share(self, overlay: &mut Overlay) -> Result<Shared> {
        Shared::new(self.connection, overlay, None)
    }
}
