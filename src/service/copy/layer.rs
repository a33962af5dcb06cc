//! The writable layer of a container that nobody has mounted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::layer::{Kind, TarMeta};
use crate::overlay::{self, Attempt, Caller, Ino, NewFile, Overlay, Rename, SetAttr, SetXattr};
use crate::service::copy::folder::is_not_allowed;
use crate::service::copy::source::{Content, each_piece};
use crate::service::copy::write::Place;
use crate::service::error::Result;
use crate::sys::SetTime;

/// The tree of a container.
pub(crate) struct Layer<'a>(pub(crate) &'a Overlay);

/// A file that the tree is told to know, until this is dropped.
pub(crate) struct Known<'a> {
    overlay: &'a Overlay,
    ino: Ino,
    kind: Kind,
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.overlay.forget(self.ino, 1);
    }
}

/// Who makes files; their owner is set when they are whole.
const ROOT: Caller = Caller { uid: 0, gid: 0, umask: 0 };
/// Permissions until a file is whole.
const OWNER_ONLY: u32 = 0o600;

impl<'a> Place for Layer<'a> {
    type Node = Known<'a>;

    fn root(&self) -> Result<Known<'a>> {
        Ok(self.known(Ino::ROOT, Kind::Directory))
    }

    fn child(&self, dir: &Known<'a>, name: &OsStr) -> Result<Option<(Kind, Known<'a>)>> {
        match self.0.lookup(dir.ino, name) {
            Ok(attr) => Ok(Some((attr.kind(), self.known(attr.ino, attr.kind())))),
            Err(overlay::Error::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn make(
        &self,
        dir: &Known<'a>,
        name: &OsStr,
        meta: &TarMeta,
        content: &mut dyn Content,
    ) -> Result<Known<'a>> {
        let new = match meta.kind {
            Kind::Regular => return self.make_regular(dir, name, meta, content),
            Kind::Directory => NewFile::Directory,
            Kind::Symlink => NewFile::Symlink(OsStr::from_bytes(&meta.target)),
            kind => NewFile::Node(kind, meta.device),
        };
        let mode = if meta.kind == Kind::Directory { 0o700 } else { OWNER_ONLY };
        let attr = self.0.make(dir.ino, name, new, mode, ROOT, Attempt::Only)?;
        Ok(self.known(attr.ino, meta.kind))
    }

    fn link(&self, node: &Known<'a>, dir: &Known<'a>, name: &OsStr) -> Result<()> {
        let attr = self.0.link(node.ino, dir.ino, name, Attempt::Only)?;
        drop(self.known(attr.ino, node.kind));
        Ok(())
    }

    fn describe(&self, node: &Known<'a>, meta: &TarMeta, owner: Option<(u32, u32)>) -> Result<()> {
        let owners =
            SetAttr { uid: owner.map(|o| o.0), gid: owner.map(|o| o.1), ..SetAttr::default() };
        if owner.is_some() {
            self.0.setattr(node.ino, owners)?;
        }
        for (name, value) in &meta.xattrs {
            let name = OsStr::from_bytes(name);
            match self.0.set_xattr(node.ino, name, value, SetXattr::Any, Attempt::Only) {
                Err(error) if is_not_allowed(error.errno()) => tracing::debug!("{error}"),
                other => other?,
            }
        }
        let set = SetAttr {
            mode: (node.kind != Kind::Symlink).then_some(meta.mode),
            mtime: Some(SetTime::To(meta.mtime)),
            ..SetAttr::default()
        };
        self.0.setattr(node.ino, set)?;
        Ok(())
    }

    fn rename(&self, dir: &Known<'a>, from: &OsStr, to: &OsStr) -> Result<()> {
        Ok(self.0.rename((dir.ino, from), (dir.ino, to), Rename::Replace, Attempt::Only)?)
    }

    fn remove(&self, dir: &Known<'a>, name: &OsStr) -> Result<()> {
        Ok(self.0.unlink(dir.ino, name, Attempt::Only)?)
    }
}

impl<'a> Layer<'a> {
    const fn known(&self, ino: Ino, kind: Kind) -> Known<'a> {
        Known { overlay: self.0, ino, kind }
    }

    fn make_regular(
        &self,
        dir: &Known<'a>,
        name: &OsStr,
        meta: &TarMeta,
        content: &mut dyn Content,
    ) -> Result<Known<'a>> {
        let attr = self.0.create(dir.ino, name, OWNER_ONLY, ROOT, Attempt::Only)?;
        let known = self.known(attr.ino, Kind::Regular);
        self.fill(&known, meta, content)?;
        Ok(known)
    }

    fn fill(&self, node: &Known<'a>, meta: &TarMeta, content: &mut dyn Content) -> Result<()> {
        let end =
            each_piece(content, &mut |bytes, offset| Ok(self.0.write(node.ino, bytes, offset)?))?;
        let size = SetAttr { size: Some(meta.size.max(end)), ..SetAttr::default() };
        self.0.setattr(node.ino, size)?;
        Ok(())
    }
}
