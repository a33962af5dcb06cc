//! podman with a store of its own, for what it makes of images; it runs nothing here.

use std::process::Command;

use crate::common::succeed;

/// A store of podman's for one test.
#[derive(Debug)]
pub(crate) struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    /// Makes an empty store.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("strata-podman-").tempdir().unwrap() }
    }

    /// Runs podman, which must succeed, and returns what it wrote to standard output.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let path = |name: &str| self.folder.path().join(name);
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(path("root")).arg("--runroot").arg(path("run"));
        podman.args(["--storage-driver", "vfs", "--cgroup-manager=cgroupfs"]);
        succeed(podman.args(arguments))
    }
}
