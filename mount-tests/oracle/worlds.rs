//! The same layers, mounted by strata as an image, by strata as plain directories, and by the kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::common::deadline::PATIENCE;
use crate::common::{Session, Who, no_beginning, succeed};
use crate::layers::extract;
use crate::op::LowerFile;
use crate::reference::Reference;

/// Who mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    Kernel,
    /// Strata, on plain directories.
    Dirs,
    /// Strata, on an image.
    Image,
}

impl World {
    pub(crate) const ALL: [Self; 3] = [Self::Kernel, Self::Dirs, Self::Image];
}

/// Mounts of the same layers.
#[derive(Debug)]
pub(crate) struct Worlds {
    session: Session,
    layers: usize,
    metacopy: bool,
}

fn name(tree: usize) -> String {
    format!("tree-{tree}")
}

impl Worlds {
    /// Makes the layers, which have a directory for each tree, and mounts them.
    pub(crate) fn new(trees: &[&[Vec<LowerFile>]], metacopy: bool) -> Self {
        let session = Session::new(Who::Root);
        let applied: Vec<_> =
            trees.iter().map(|lower| Reference::without_idle_whiteouts(lower).layers).collect();
        let layers = applied.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let this = Self { session, layers, metacopy };
        for world in [World::Kernel, World::Dirs] {
            for number in 0..layers {
                let root = this.dir(world, &format!("layer-{number}"));
                for (tree, lower) in applied.iter().enumerate() {
                    // The kernel reads markers in its own form only.
                    let form = if world == World::Kernel { 0 } else { number };
                    match lower.get(number) {
                        Some(layer) => extract(layer, &root.join(name(tree)), form),
                        None if number == 0 => extract(&[], &root.join(name(tree)), form),
                        None => {}
                    }
                }
            }
        }
        this.mount(World::Kernel);
        this.mount(World::Dirs);
        // The image is what the kernel merges.
        let (merged, copy) = (this.target(World::Kernel), this.session.path("image"));
        succeed(Command::new("cp").arg("-a").arg(merged).arg(&copy));
        this.session.run(&["import", copy.to_str().unwrap(), "image:1"]);
        this.session.run(&["create", "--name", "box", "image:1"]);
        this.mount(World::Image);
        this
    }

    /// Tells whether the kernel copies attributes without contents.
    pub(crate) fn metacopy(&self) -> bool {
        self.metacopy
    }

    fn dir(&self, world: World, name: &str) -> PathBuf {
        let path = self.session.dir(&format!("{world:?}/{name}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn target(&self, world: World) -> PathBuf {
        self.session.path(&format!("{world:?}/merged"))
    }

    /// Returns the directory of a tree in a mount.
    pub(crate) fn root(&self, world: World, tree: usize) -> PathBuf {
        self.target(world).join(name(tree))
    }

    fn options(&self, world: World) -> String {
        let [upper, work] = ["upper", "work"].map(|name| self.dir(world, name));
        let lower =
            |number: usize| self.dir(world, &format!("layer-{number}")).display().to_string();
        let lowers: Vec<_> = (0..self.layers).rev().map(lower).collect();
        let (lowers, upper, work) = (lowers.join(":"), upper.display(), work.display());
        format!("lowerdir={lowers},upperdir={upper},workdir={work},redirect_dir=on")
    }

    fn mount(&self, world: World) {
        let target = self.dir(world, "merged");
        let shown = target.to_str().unwrap();
        match world {
            World::Image => {
                let options = "volatile,dev,data=passthrough";
                drop(self.session.run(&["mount", "-o", options, "box", shown]));
            }
            World::Dirs => {
                let ways = "metacopy=on,fsync=0,transport=dev-fuse,data=cache";
                let options = format!("{},{ways}", self.options(world));
                self.session.run(&["overlay", "-o", &options, shown]);
            }
            World::Kernel => {
                let metacopy = if self.metacopy { "on" } else { "off" };
                let options = self.options(world);
                let options = format!("{options},index=on,xino=on,volatile,metacopy={metacopy}");
                let kind = Some("overlay");
                // Another test's program with mounts of its own may have a copy of the last one still.
                let start = Instant::now();
                let mount = || mount(kind, &target, kind, MsFlags::empty(), Some(&*options));
                let mut mounted = mount();
                while mounted == Err(nix::errno::Errno::EBUSY) && start.elapsed() < PATIENCE {
                    std::thread::yield_now();
                    mounted = mount();
                }
                mounted.unwrap();
            }
        }
    }

    /// Unmounts and mounts again; nobody may have anything open.
    pub(crate) fn remount(&self, world: World) {
        self.unmount(world);
        self.mount(world);
    }

    fn unmount(&self, world: World) {
        let target = self.target(world);
        match world {
            World::Image => self.session.unmount(target.to_str().unwrap()),
            World::Dirs => self.session.detach(&target),
            World::Kernel => {
                let _guard = no_beginning();
                // Whoever looks at all mounts of the machine has this one open for a moment.
                let unmount = |_| umount2(&target, MntFlags::empty());
                let busy = |result: &nix::Result<()>| *result == Err(nix::errno::Errno::EBUSY);
                let tried = (0..10_000).map(unmount).find(|result| !busy(result));
                tried.expect("nobody has it open").unwrap();
                let mark = self.dir(world, "work").join("work/incompat/volatile");
                fs::remove_dir_all(mark).unwrap();
            }
        }
    }
}
