//! File systems on loop devices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::mount::{MntFlags, umount2};

use crate::common::deadline::PATIENCE;
use crate::common::{run, succeed};
use crate::torture::disk::BLOCK;

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Ext4,
    Xfs,
    Btrfs,
}

impl Format {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Returns the size of the smallest that its program makes without complaint, in MiB.
    const fn mebibytes(self) -> u64 {
        match self {
            Self::Ext4 => 64,
            Self::Xfs => 300,
            Self::Btrfs => 256,
        }
    }

    /// Makes a file with an empty file system.
    fn make(self, file: &Path) {
        fs::File::create(file).unwrap().set_len(self.mebibytes() << 20).unwrap();
        let device = Loop::of(file);
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        match self {
            Self::Ext4 => command.args(["-q", "-b", "4096", "-m", "0", "-E", "nodiscard"]),
            Self::Xfs | Self::Btrfs => command.args(["-q", "-K"]),
        };
        succeed(command.arg(&device.0));
    }
}

/// A loop device; it goes with its last user.
#[derive(Debug)]
struct Loop(String);

impl Loop {
    fn of(file: &Path) -> Self {
        // It looks for another one itself when somebody takes the one it has found.
        let mut command = Command::new("losetup");
        command.args(["--find", "--show", "--sector-size", &BLOCK.to_string()]);
        Self(succeed(command.arg(file)).trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // One that is in use goes when it is not any more.
        let output = run(Command::new("losetup").args(["--detach", &self.0]));
        if output.code != 0 {
            eprintln!("{} stays: {}", self.0, output.stderr);
        }
    }
}

/// A file system that is mounted.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) at: PathBuf,
}

impl Volume {
    /// Makes a file system in a file, and mounts it; says so and returns none where the machine cannot.
    pub(crate) fn new(format: Format, file: &Path, at: &Path) -> Option<Self> {
        format.make(file);
        let told = |error: &String| {
            eprintln!("this machine has no {}, which is left out: {error}", format.name());
        };
        Self::mount(format, file, at).inspect_err(told).ok()
    }

    /// Mounts the file system in a file. `Err` has what the kernel says.
    pub(crate) fn mount(format: Format, file: &Path, at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).unwrap();
        let device = Loop::of(file);
        let mut command = Command::new("mount");
        command.args(["-t", format.name()]);
        if format == Format::Xfs {
            command.args(["-o", "nouuid"]);
        }
        let output = run(command.arg(&device.0).arg(at));
        match output.code {
            0 => Ok(Self { at: at.to_owned() }),
            _ => Err(output.stderr),
        }
    }

    /// Unmounts it, and waits until all of it is written.
    pub(crate) fn unmount(self) {
        let begun = Instant::now();
        while let Err(error) = umount2(&self.at, MntFlags::empty()) {
            // The server of a mount in it may be about to end.
            assert!(begun.elapsed() < PATIENCE, "{}: {error}", self.at.display());
            std::thread::yield_now();
        }
        std::mem::forget(self);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.at, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.at.display());
        }
    }
}
