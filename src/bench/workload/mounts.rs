//! The mount itself: how long it takes, and what its server takes.

use std::os::fd::AsFd;
use std::path::Path;

use crate::bench::mounted::Access;
use crate::bench::run::Sample;
use crate::bench::walk::{self, Entry, Seen};
use crate::bench::workload::{Figure, Values, Workload, WorkloadKind, expect};
use crate::bench::{FixtureKind, Group, Result, Unit};
use crate::sys;

/// Mounting.
pub(crate) static MOUNT: Workload = Workload {
    id: "mount",
    group: Group::Mounts,
    title: "mount",
    what: "mounts a tree of 150,000 entries (at the full size) until its root can be listed; by the number of \
           layers. A mount of the kernel is a system call, the others are programs that have to start",
    figures: &[
        Figure { id: "mount-1", title: "mount, 1 layer", unit: Unit::Seconds },
        Figure { id: "mount-10", title: "mount, 10 layers", unit: Unit::Seconds },
        Figure { id: "mount-50", title: "mount, 50 layers", unit: Unit::Seconds },
        Figure { id: "mount-128", title: "mount, 128 layers", unit: Unit::Seconds },
        Figure { id: "mount-500", title: "mount, 500 layers", unit: Unit::Seconds },
    ],
    fixture: FixtureKind::Deep,
    kind: WorkloadKind::Mounts,
    run: mount,
};

/// The memory of a server.
pub(crate) static MEMORY: Workload = Workload {
    id: "memory",
    group: Group::Mounts,
    title: "memory of the server after a walk",
    what: "walks through the same tree, in 10 layers, and looks what its server has then: pages that it has \
           written, which are its own; and those and pages of files that nobody else has mapped, which the \
           kernel may drop",
    figures: &[
        Figure { id: "memory-own", title: "server's own memory", unit: Unit::Bytes },
        Figure {
            id: "memory-private",
            title: "server's memory with mapped files",
            unit: Unit::Bytes,
        },
    ],
    fixture: FixtureKind::Deep,
    kind: WorkloadKind::Servers,
    run: memory,
};

/// Numbers of layers that are mounted, in the order of the figures.
pub const LAYER_COUNTS: [usize; 5] = [1, 10, 50, 128, 500];

/// How many layers the tree has whose server's memory is looked at.
const MEMORY_LAYERS: usize = 10;

/// The directory with a file for each layer, named by its number from 0.
pub const LAYER_MARKS: &str = "layers";

fn mount(sample: &Sample<'_>) -> Result<Values> {
    let mut values = Vec::new();
    for count in LAYER_COUNTS {
        let there = sample.fixture.layers.len();
        values.push(if count > there {
            Err(format!("this size has {there} layers"))
        } else {
            match mount_layers(sample, count) {
                Ok(took) => Ok(took),
                Err(error) => {
                    sample.limit.go_on()?;
                    Err(error.told())
                }
            }
        });
    }
    Ok(values)
}

fn mount_layers(sample: &Sample<'_>, count: usize) -> Result<f64> {
    let mounted = sample.mount_lowest(Access::Read, count)?;
    let root = sys::open_dir_path(&mounted.root)?;
    let has = |layer: usize| {
        sys::exists(root.as_fd(), Path::new(LAYER_MARKS).join(layer.to_string()).as_os_str())
    };
    let (top, above) = (has(count - 1)?, has(count)?);
    expect("whether the top layer is there", &true, &top)?;
    expect("whether the layer above is there", &false, &above)?;
    drop(root);
    let took = mounted.took.as_secs_f64();
    sample.end(mounted)?;
    Ok(took)
}

fn memory(sample: &Sample<'_>) -> Result<Values> {
    let layers = MEMORY_LAYERS.min(sample.fixture.layers.len());
    let mounted = sample.mount_lowest(Access::Read, layers)?;
    let seen = walk::count(&mounted.root, &|| sample.limit.go_on())?;
    let files = sample.fixture.files.iter().filter(|file| !is_of_layer_above(file, layers));
    let files: Vec<_> = files.cloned().collect();
    expect("the walk", &Seen::of(&files), &seen)?;
    let memory = mounted.server_memory()?;
    sample.end(mounted)?;
    Ok(vec![Ok(memory.written as f64), Ok(memory.private as f64)])
}

/// Tells whether a file is the mark of a layer that is not among the lowest.
fn is_of_layer_above(file: &Entry, lowest: usize) -> bool {
    let number =
        file.path.strip_prefix(LAYER_MARKS).ok().and_then(|name| name.to_str()?.parse().ok());
    number.is_some_and(|number: usize| number >= lowest)
}
