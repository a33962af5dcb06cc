//! What strata does otherwise than the kernel's overlayfs, on purpose. The page `docs/semantics.md` has
//! the same table.

use crate::op::{LowerFile, LowerKind, Op};
use crate::oracle::act::{Act, How, Special};
use crate::oracle::data::Data;
use crate::oracle::kernel::{Case, Found, on_ground};
use crate::oracle::seen::Difference;
use crate::oracle::worlds::World;

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Deviation {
    pub(crate) what: &'static str,
    strata: &'static str,
    kernel: &'static str,
    why: &'static str,
    explains: fn(&Found, &Difference) -> bool,
    example: fn() -> Case,
}

impl Deviation {
    /// Tells whether a difference is what this row says.
    pub(crate) fn explains(&self, found: &Found) -> bool {
        (self.explains)(found, &found.difference)
    }

    /// Returns a tree, and what to do in it, that shows the difference.
    pub(crate) fn example(&self) -> Case {
        (self.example)()
    }

    /// Returns the row as the page has it.
    pub(crate) fn row(&self) -> String {
        format!("| {} | {} | {} | {} |", self.what, self.strata, self.kernel, self.why)
    }
}

pub(crate) const DEVIATIONS: [Deviation; 9] = [
    Deviation {
        what: "`st_nlink` of a directory",
        strata: "2 and its subdirectories",
        kernel: "1 if it is merged, else that of the layer",
        why: "programs that count subdirectories by it are right",
        explains: |_, difference| difference.kind == "directory" && difference.field == "nlink",
        example: || (on_ground(Vec::new()), vec![Act::Op(Op::Mkdir(vec![0, 3], 0o755))]),
    },
    Deviation {
        what: "`st_size` of a directory",
        strata: "0 if it is an image's, else that of the layer",
        kernel: "that of the layer",
        why: "an image says none",
        explains: |found, difference| {
            let is_size = difference.kind == "directory" && difference.field == "size";
            found.world == World::Image && is_size && difference.strata == "0"
        },
        example: || (on_ground(Vec::new()), Vec::new()),
    },
    Deviation {
        what: "`st_nlink` of a file of which another layer hides a name",
        strata: "of an image the names that are shown",
        kernel: "the names that the file has in its layer",
        why: "an image knows all names",
        explains: |found, difference| {
            let counted = difference.kind == "file" && difference.field == "nlink";
            let is_less = difference.kernel > difference.strata && difference.strata != "0";
            found.world == World::Image && counted && is_less
        },
        example: || {
            let hard = LowerFile { path: vec![0, 3], kind: LowerKind::Hard(vec![2]) };
            let hidden = LowerFile { path: vec![0, 3], kind: LowerKind::Whiteout };
            (on_ground(vec![vec![hard], vec![hidden]]), vec![Act::Op(Op::Stat(vec![2]))])
        },
    },
    Deviation {
        what: "time of change of a file of which only attributes were copied, opened for writing",
        strata: "that from before, until something is written",
        kernel: "now, with `metacopy=on`",
        why: "nothing was changed",
        explains: |found, difference| {
            let is_time = difference.kind == "file" && difference.field == "mtime";
            found.metacopy && is_time && difference.kernel == "now"
        },
        example: || {
            let both = How { read: true, write: true, ..How::default() };
            let copied = Act::Op(Op::Chmod(vec![2], 0o600));
            (on_ground(Vec::new()), vec![copied, Act::Open(0, vec![2], both)])
        },
    },
    Deviation {
        what: "`st_nlink` of a lower file that is open and was replaced by a rename",
        strata: "0",
        kernel: "that from before",
        why: "it has no name any more",
        explains: |_, difference| {
            let is_open = difference.at.contains("FstatHandle") && difference.field == "nlink";
            is_open && difference.strata == "0"
        },
        example: || {
            let opened = Act::Open(0, vec![2], How { read: true, ..How::default() });
            let replaced = Act::Op(Op::Rename(vec![3], vec![2]));
            (on_ground(Vec::new()), vec![opened, replaced, Act::Op(Op::FstatHandle(0))])
        },
    },
    Deviation {
        what: "map through a handle from before the file was copied",
        strata: "shows the copy",
        kernel: "shows the old file; `SIGBUS` after its end",
        why: "data belongs to the inode, not to the handle",
        explains: |_, difference| difference.at.contains("MapAnyway"),
        example: || {
            let reader = How { read: true, ..How::default() };
            let both = How { write: true, ..reader };
            let acts = vec![
                Act::Open(0, vec![2], reader),
                Act::Open(1, vec![2], both),
                Act::Data(1, Data::Write((0, 100), 1)),
                Act::Data(0, Data::MapAnyway((0, 100))),
            ];
            (on_ground(Vec::new()), acts)
        },
    },
    Deviation {
        what: "change of attributes of a lower file that is open and has no name any more",
        strata: "works",
        kernel: "`EEXIST`, of a directory `ENOTDIR`, with `index=on`",
        why: "data and attributes belong to the inode",
        explains: |_, difference| {
            let acts = ["ChmodHandle", "ChownHandle", "UtimesHandle", "SetXattrHandle"];
            let is_change = acts.iter().any(|act| difference.at.starts_with(act));
            let is_refused = ["Refused(EEXIST)", "Refused(ENOTDIR)"].contains(&&*difference.kernel);
            is_change && is_refused && difference.strata == "Did(\"\")"
        },
        example: || {
            let reader = How { read: true, ..How::default() };
            let opened = Act::Open(0, vec![2], reader);
            let removed = Act::Op(Op::Unlink(vec![2]));
            let again = Act::Op(Op::Utimes(vec![], 1));
            (on_ground(Vec::new()), vec![opened, removed, Act::ChmodHandle(0, 0o600), again])
        },
    },
    Deviation {
        what: "`RENAME_WHITEOUT` of a caller",
        strata: "works: leaves a device 0/0",
        kernel: "`EINVAL`",
        why: "an overlay can have the mount as its upper",
        explains: |_, difference| {
            difference.at.contains("RenameWhiteout") && difference.field == "answer"
        },
        example: || {
            let unlink = |name| Act::Op(Op::Unlink(vec![name]));
            let acts = vec![Act::RenameWhiteout(vec![3], vec![2]), unlink(3), unlink(2)];
            (on_ground(Vec::new()), acts)
        },
    },
    Deviation {
        what: "`mknod` of the character device 0/0",
        strata: "works: kept as 0/1 with a mark",
        kernel: "`EPERM`",
        why: "in an image it is a device like any other",
        explains: |_, difference| {
            let is_made = difference.at.contains("Whiteout") && difference.field == "answer";
            let is_there = difference.field == "what is there" && difference.kernel == "-";
            let is_device = difference.strata.contains("\"rdev\": \"0\"");
            is_made || is_there && difference.kind == "character" && is_device
        },
        example: || {
            let made = Act::Mknod(vec![0, 3], Special::Whiteout);
            (on_ground(Vec::new()), vec![made, Act::Op(Op::Utimes(vec![0], 1))])
        },
    },
];
