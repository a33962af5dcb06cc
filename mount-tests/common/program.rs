//! The program under test, where an ordinary user can run it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::common::Who;
use crate::common::session::no_beginning;

/// The program. The one for ordinary users is a copy in a temporary folder, because they may not
/// reach the build folder; the tests that run at the same time share it.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    Built,
    Copied(Arc<tempfile::TempDir>),
}

static COPY: Mutex<Weak<tempfile::TempDir>> = Mutex::new(Weak::new());

impl Program {
    pub(crate) fn of(who: Who) -> Self {
        if who == Who::Root {
            return Self::Built;
        }
        let mut shared = COPY.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = shared.upgrade().unwrap_or_else(|| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            // Whoever began now would keep the copy open for writing, and it could not be run.
            let _guard = no_beginning();
            fs::copy(env!("CARGO_BIN_EXE_strata"), folder.path().join("strata")).unwrap();
            Arc::new(folder)
        });
        *shared = Arc::downgrade(&folder);
        Self::Copied(folder)
    }

    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Built => Path::new(env!("CARGO_BIN_EXE_strata")).to_owned(),
            Self::Copied(folder) => folder.path().join("strata"),
        }
    }
}
