//! One function per verb, and the only room that knows all the others.
//!
//! A verb reads here from its beginning to its end: which rooms it asks, in which order. Nothing is
//! printed; long work tells its [`Progress`].

mod analyze;
mod append;
mod background;
mod bench;
mod browse;
mod commit;
mod compare;
mod containers;
mod copy;
mod diff;
mod directory;
mod doctor;
mod error;
mod explore;
mod export;
mod filter;
mod fsck;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handover;
mod history;
mod holder;
mod images;
mod import;
mod inspect;
mod interrupt;
mod layers;
mod load;
mod login;
mod machine;
mod mount;
mod mutate;
mod names;
mod opened;
mod pack;
mod pipeline;
mod progress;
mod prune;
mod pull;
mod push;
mod rebase;
mod remote;
mod remount;
mod resolve;
mod room;
mod save;
mod snapshots;
mod squash;
mod stack;
mod trees;
mod umount;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::layer::Excess;
use crate::registry::Registry;
use crate::store::Store;

pub use crate::bench::{
    Better, Driver, FigureReport, FixtureKind, Group, MachineFacts, Measured, Measurement, Peer,
    Report, Size, Step, Unit, Watch, Workload, WorkloadReport, Workspace, merged, workload,
    workloads,
};
pub use crate::layer::{Depth, Kind, Limits};
pub use crate::registry::{Kept, Options as RegistryOptions, Server, base64, docker_setting};
pub use crate::store::{Footprint, MountState, Snapshot};
pub use crate::sys::Time;
pub use analyze::{Analysis, WastedPath};
pub use append::AppendRequest;
pub use background::{Background, Serving, runs_as_root};
pub use bench::{BenchRequest, BenchSource, run_bench};
pub use browse::{TreeFile, TreePath, Walk, glob};
pub use commit::CommitRequest;
pub use containers::{ContainerRow, ContainerSizes, ContainerStatus, CreateRequest};
pub use copy::{Copied, CopyRequest};
pub use diff::{DiffKind, DiffLine};
pub use doctor::{Finding, Verdict};
pub use error::{Error, Result};
pub use explore::{Explorer, Level, LevelFile, Replace};
pub use filter::Filters;
pub use fsck::{Finding as FsckFinding, FindingState, FsckRequest, FsckSummary};
pub use history::HistoryRow;
pub use images::{ImageRow, Removed};
pub use import::{ImportRequest, ImportSource};
pub use inspect::{ContainerDetails, Details, ImageDetails};
pub use interrupt::hold_interrupts;
pub use layers::{BlameRow, LayerRow};
pub use load::{LoadRequest, LoadSource, Loaded, Replaced};
pub use login::hide_typing;
pub use machine::Machine;
pub use mount::{MountRequest, Mounting};
pub use mutate::MutateRequest;
pub use progress::{Event, LayerState, Progress, Quiet};
pub use prune::{Pruned, Room, Usage};
pub use pull::{PullRequest, Pulled};
pub use push::Pushed;
pub use rebase::RebaseRequest;
pub use remote::RemoteManifest;
pub use remount::{Nudge, Replacing};
pub use room::RoomLeft;
pub use save::SaveRequest;
pub use snapshots::{SnapshotRequest, SnapshotRow, UndoRequest, Undone};
pub use squash::SquashRequest;
pub use stack::{Ignored, MountedStack, StackOptions, StackRequest, is_driver_name, mount_stack};
pub use trees::{FileChange, FileSide};
pub use umount::MountRow;

/// Everything that the verbs need: the store, the registries, somebody to tell.
#[derive(Clone)]
pub struct Strata {
    store: Store,
    options: RegistryOptions,
    registry: Arc<OnceLock<Registry>>,
    progress: Arc<dyn Progress>,
    limits: Limits,
}

impl std::fmt::Debug for Strata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Strata").field("root", &self.store.root()).finish_non_exhaustive()
    }
}

impl Strata {
    /// Opens the store at `root`, which is made if it is missing.
    pub fn open(
        root: &Path,
        options: RegistryOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Self> {
        // A server leaves the directory that it was started in.
        let root = std::path::absolute(root)
            .map_err(error::io_error("find", root.display().to_string()))?;
        let store = Store::open(&root)?;
        let limits = Limits::default();
        Ok(Self { store, options, registry: Arc::default(), progress, limits })
    }

    /// Returns the same, which takes no larger images from others.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the directory of the store.
    pub fn root(&self) -> &Path {
        self.store.root()
    }

    /// Returns the registries, contacting none.
    fn registry(&self) -> Result<&Registry> {
        if let Some(registry) = self.registry.get() {
            return Ok(registry);
        }
        let registry = Registry::new(self.options.clone())?;
        Ok(self.registry.get_or_init(|| registry))
    }

    /// Refuses what says of itself that it is larger than is allowed.
    fn check_size(&self, name: &str, what: Excess, found: u64) -> Result<()> {
        match self.limits.size_bytes {
            most if found > most => Err(Error::too_large(name.to_owned(), what, found, most)),
            _ => Ok(()),
        }
    }

    fn tell(&self, event: Event) {
        self.progress.event(event);
    }
}
