//! The merged layers of an image as a lower tree: every answer comes from the mapped index.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::layer::{Chain, Content, Kind, ROOT};
use crate::overlay::error::{Error, Result};
use crate::overlay::lower::{Lower, LowerAttr, LowerEntry, LowerFile, LowerFound, LowerId};

/// The merged layers of an image.
#[derive(Debug)]
pub struct ChainLower(Chain);

impl ChainLower {
    /// Returns the lower tree that a chain is.
    pub const fn new(chain: Chain) -> Self {
        Self(chain)
    }
}

fn inode(id: LowerId) -> Result<u32> {
    u32::try_from(id.0).map_err(|_| Error::Stale(id.0))
}

const fn id(inode: u32) -> LowerId {
    LowerId(inode as u64)
}

impl Lower for ChainLower {
    fn tree_id(&self) -> Option<[u8; 32]> {
        Some(*self.0.id().as_bytes())
    }

    fn content_digest(&self, id: LowerId) -> Result<Option<[u8; 32]>> {
        Ok(match self.0.content(inode(id)?)? {
            Content::Object(digest) => Some(*digest.as_bytes()),
            Content::Inline(_) => None,
        })
    }

    fn root(&self) -> LowerId {
        id(ROOT)
    }

    fn contains(&self, id: LowerId) -> bool {
        id.0 < u64::from(self.0.inode_count())
    }

    fn number_of_upper(&self, inode: u64) -> u64 {
        u64::from(self.0.inode_count()).wrapping_add(inode)
    }

    fn knows_all_names(&self) -> bool {
        true
    }

    fn verifies(&self) -> bool {
        self.0.verifies()
    }

    fn needs_index(&self) -> bool {
        false
    }

    fn kind(&self, id: LowerId) -> Result<Kind> {
        Ok(self.0.kind(inode(id)?)?)
    }

    fn attr(&self, id: LowerId) -> Result<LowerAttr> {
        Ok(self.0.attr(inode(id)?)?.into())
    }

    fn lookup(&self, dir: LowerId, name: &OsStr) -> Result<Option<LowerFound>> {
        Ok(self.0.lookup(inode(dir)?, name)?.map(id).map(LowerFound::known))
    }

    fn entries(
        &self,
        dir: LowerId,
        from: u64,
        sink: &mut dyn FnMut(LowerEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let dir = inode(dir)?;
        let Ok(from) = u32::try_from(from) else { return Ok(()) };
        for position in from..self.0.entry_count(dir)? {
            let Some(entry) = self.0.entry(dir, position)? else { break };
            let entry = LowerEntry {
                id: id(entry.inode),
                kind: entry.kind,
                name: entry.name,
                next: u64::from(position) + 1,
            };
            if sink(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, id: LowerId) -> Result<OsString> {
        Ok(self.0.read_link(inode(id)?)?.to_owned())
    }

    fn xattrs(&self, id: LowerId) -> Result<Vec<(OsString, Vec<u8>)>> {
        let xattrs = self.0.xattrs(inode(id)?)?;
        Ok(xattrs.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect())
    }

    fn open(&self, id: LowerId) -> Result<LowerFile> {
        match self.0.content(inode(id)?)? {
            Content::Inline(bytes) => Ok(LowerFile::Bytes(bytes.into())),
            Content::Object(digest) => Ok(LowerFile::File(Arc::new(self.0.open_object(digest)?))),
        }
    }

    fn content_at(&self, _: &OsStr) -> Result<Option<LowerFound>> {
        Ok(None)
    }

    fn names(&self, id_of: LowerId) -> Result<Vec<(LowerId, OsString)>> {
        let names = self.0.names(inode(id_of)?)?;
        Ok(names.into_iter().map(|(dir, name)| (id(dir), name.to_owned())).collect())
    }

    fn has_unknown_names(&self, _: LowerId) -> Result<bool> {
        Ok(false)
    }

    fn hold(&self, id: LowerId) -> LowerFound {
        LowerFound::known(id)
    }

    fn hold_if_known(&self, id: LowerId) -> Option<LowerFound> {
        self.contains(id).then(|| LowerFound::known(id))
    }

    fn keep(&self, _: LowerId) {}

    fn forget(&self, _: LowerId) {}
}
