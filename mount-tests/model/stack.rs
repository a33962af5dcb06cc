//! The trees that a lower can be.

use std::sync::Arc;

use strata::layer::{Chain, Index};
use strata::overlay::{ChainLower, DirsLower, Links, Lower, LowerDirs, Owners};

use crate::layers::Objects;
use crate::mounted::Mounted;

/// What the lower is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    /// The index of an image.
    Chain,
    /// Plain directories.
    Dirs,
}

impl Mounted {
    pub(crate) fn lower(&self) -> Box<dyn Lower> {
        match self.stack {
            Stack::Chain => self.chain_lower(),
            Stack::Dirs => self.dirs_lower(),
        }
    }

    fn dirs_lower(&self) -> Box<DirsLower> {
        let dirs = (0..self.layers.len()).rev().map(|number| self.dir(&format!("layer-{number}")));
        let dirs = LowerDirs {
            dirs: dirs.collect(),
            data_only: Vec::new(),
            upper: Some(self.dir("upper")),
            user_marks: false,
            owners: Owners::Native,
            static_links: false,
            follow_redirects: true,
            links: Links::Kept,
        };
        Box::new(DirsLower::open(&dirs).expect("directories"))
    }

    fn chain_lower(&self) -> Box<ChainLower> {
        let indexes = self.layers.iter().map(|file| Index::open(file).expect("an index")).collect();
        let index = Index::open(&self.chain).expect("a chain");
        let objects = Arc::new(Objects(self.dir("objects")));
        Box::new(ChainLower::new(Chain::new(index, indexes, objects).expect("a chain")))
    }
}
