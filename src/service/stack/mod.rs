//! Mounting a stack of plain directories, as podman, buildah, docker and containerd have an overlay
//! driver do it.

mod options;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::fuse::{self, MountOptions};
use crate::overlay::{DirsLower, LowerDirs, Overlay, Owners, Redirects, Sync, UpperDirs, Writes};
use crate::service::error::Result;
use crate::service::holder::Holder;
use crate::service::mount::{Served, absolute};
use crate::service::runs_as_root;
use crate::service::umount::clear_way;
use crate::sys;

pub use options::{Ignored, StackOptions};

/// Directories to mount, and where.
#[derive(Clone, Debug)]
pub struct StackRequest {
    /// Lists of mount options, as they stand behind `-o`.
    pub options: Vec<OsString>,
    /// The mount point.
    pub target: PathBuf,
}

/// How long the server of a mount that is gone may take to end.
const ENDING: Duration = Duration::from_secs(3);

/// A stack that is mounted and answers.
#[derive(Debug)]
pub struct MountedStack(Served);

impl MountedStack {
    /// Lets go of the terminal and of the directory that this process was started in.
    pub fn detach(&self) -> Result<()> {
        std::env::set_current_dir("/").map_err(crate::service::error::io_error("enter", "/"))?;
        Ok(sys::null_stdio(None)?)
    }

    /// Serves until it is unmounted.
    pub fn serve(self) -> Result<()> {
        match self.0 {
            Served::Here(mount, _) => Ok(mount.wait()?),
            Served::Held(holder) => holder.hold(),
        }
    }
}

/// Mounts a stack of directories. When this returns the mount answers.
///
/// # Errors
/// [`crate::service::Error::StackOption`] names an option that is not known or has no good value.
pub fn mount_stack(request: &StackRequest) -> Result<MountedStack> {
    let options = StackOptions::parse(&request.options)?;
    let mut mount = MountOptions::parse(&options.mount)?;
    if options.owners != Owners::Mapped {
        mount.check_permissions();
    }
    mount.set_source("overlay");
    sys::block_end_signals()?;
    sys::keep_little_memory()?;
    let target = absolute(&request.target)?;
    if clear_way(&target)? {
        tracing::warn!(
            "the process that served {} has died; its mount is cleared",
            target.display()
        );
    }
    let prepared = fuse::prepare(&target, &mount)?;
    let lower_dirs = LowerDirs {
        dirs: options.lower.clone(),
        data_only: options.data_only.clone(),
        upper: options.upper.clone(),
        // What an upper of this kind has written may be a lower now.
        user_marks: options.user_marks || options.owners == Owners::Mapped || !runs_as_root(),
        owners: options.owners,
        static_links: options.static_links,
        follow_redirects: options.redirects != Redirects::Refused,
        links: options.kept_links(),
    };
    let writes = Writes {
        redirects: options.redirects,
        metacopy: options.metacopy,
        user_marks: options.user_marks,
    };
    let owners = Some(options.owners);
    let (overlay, statfs_of) = match (&options.upper, &options.work) {
        (Some(upper), Some(work)) if !mount.is_read_only() => {
            let sync = options.sync.unwrap_or(Sync::Always);
            let dirs = UpperDirs { upper, work, sync, owners, writes };
            (writable(&lower_dirs, dirs)?, sys::open_dir_path(upper)?)
        }
        (Some(upper), Some(work)) => {
            let sync = Sync::Never;
            let dirs = UpperDirs { upper, work, sync, owners, writes };
            let lower = Box::new(DirsLower::open(&lower_dirs)?);
            (Overlay::inspect(lower, dirs)?, sys::open_dir_path(upper)?)
        }
        _ => {
            let lower = DirsLower::open(&lower_dirs)?;
            let statfs_of = lower.statfs_fd()?;
            (Overlay::read_only(Box::new(lower)), statfs_of)
        }
    };
    let mut overlay = overlay.with_ids(options.ids);
    if options.no_xattrs {
        overlay = overlay.without_xattrs();
    }
    if mount.survives() {
        let shared = fuse::mount_shared(&mut overlay, &target, &mount, statfs_of, prepared)?;
        return Ok(MountedStack(Served::Held(Box::new(Holder::start(shared, overlay, None)?))));
    }
    let mount = fuse::mount(overlay, &target, &mount, statfs_of, prepared)?;
    Ok(MountedStack(Served::Here(mount, None)))
}

/// Opens a stack to change it. The server of an earlier mount may not have ended yet: the kernel tells
/// it that it was unmounted after it has told who unmounted.
fn writable(lower: &LowerDirs, dirs: UpperDirs<'_>) -> Result<Overlay> {
    let start = Instant::now();
    loop {
        match Overlay::writable(Box::new(DirsLower::open(lower)?), dirs) {
            Err(crate::overlay::Error::InUse(_)) if start.elapsed() < ENDING => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return Ok(other?),
        }
    }
}

/// Returns whether a program of this name is called as an overlay driver.
pub fn is_driver_name(name: &OsStr) -> bool {
    ["fuse-overlayfs", "mount.fuse.strata", "mount.strata"].iter().any(|known| *known == name)
}
