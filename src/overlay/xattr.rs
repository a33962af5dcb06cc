//! Extended attributes.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::overlay::attempt::Attempt;
use crate::overlay::copy_up::Need;
use crate::overlay::error::{Error, Result};
use crate::overlay::node::Node;
use crate::overlay::place::{Located, Place};
use crate::overlay::upper::check_name;
use crate::overlay::{Ino, Overlay};
use crate::sys::{self, Errno, SetXattr, XattrTarget};

/// What a program may do that others may not.
const CAPABILITY: &str = "security.capability";

/// What an attempt notes of an attribute that it is about to set or remove.
const WAS: u64 = 1;
const WAS_NOT: u64 = 2;

impl Overlay {
    /// Returns the value of an attribute.
    pub fn get_xattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        self.check_xattrs()?;
        check_name(name)?;
        let place = self.place(ino)?;
        let node = match &place {
            Place::Node(node) if node.is_in_upper() => node,
            _ => {
                let found = self.lower_xattrs(&place)?;
                let found = found.into_iter().find(|(other, _)| other == name);
                return found.map(|(_, value)| value).ok_or(Error::NoXattr);
            }
        };
        if name == CAPABILITY {
            return self.capability(node)?.ok_or(Error::NoXattr);
        }
        let (located, on_disk) = self.upper_xattr(node, name)?;
        Ok(sys::get_xattr(located.target(), &on_disk)?)
    }

    /// Returns the capabilities of a file of the upper. The kernel asks for them before each first write
    /// to a file.
    fn capability(&self, node: &Arc<Node>) -> Result<Option<Vec<u8>>> {
        let version = {
            let state = node.state.lock();
            if state.has_no_capability {
                return Ok(None);
            }
            state.dir.version
        };
        let (located, on_disk) = self.upper_xattr(node, CAPABILITY.as_ref())?;
        let found = sys::xattr_if_set(located.target(), &on_disk)?;
        if found.is_none() && self.upper.is_some() {
            let mut state = node.state.lock();
            state.has_no_capability = state.dir.version == version;
        }
        Ok(found)
    }

    /// Returns where an attribute of a file of the upper is, and how it is called there.
    fn upper_xattr(&self, node: &Arc<Node>, name: &OsStr) -> Result<(Located, OsString)> {
        let namespace = self.writable_or_seen()?.namespace();
        let on_disk = namespace.on_disk(name).ok_or(Error::NoXattr)?;
        let (_, located) = self.raw_stat(node)?;
        Ok((located, on_disk))
    }

    /// Returns the names of all attributes.
    pub fn list_xattr(&self, ino: Ino) -> Result<Vec<OsString>> {
        self.check_xattrs()?;
        let place = self.place(ino)?;
        let node = match &place {
            Place::Node(node) if node.is_in_upper() => node,
            _ => return Ok(self.lower_xattrs(&place)?.into_iter().map(|(name, _)| name).collect()),
        };
        let namespace = self.writable_or_seen()?.namespace();
        let (fd, _) = self.open_node(node)?;
        let names = sys::list_xattr(XattrTarget::Fd(fd.as_fd()))?;
        Ok(names.iter().filter_map(|name| namespace.seen(name)).collect())
    }

    /// Sets an attribute.
    pub fn set_xattr(
        &self,
        ino: Ino,
        name: &OsStr,
        value: &[u8],
        flag: SetXattr,
        attempt: Attempt<'_>,
    ) -> Result<()> {
        self.check_xattrs()?;
        check_name(name)?;
        check_settable(name)?;
        let namespace = self.changeable()?.namespace();
        let hidden = Error::NotPermitted("the name is one that the overlay uses itself");
        let on_disk = namespace.on_disk(name).ok_or(hidden)?;
        let node = self.node(&self.place(ino)?)?;
        self.copy_up(&node, Need::Metadata)?;
        let (fd, _) = self.open_node(&node)?;
        let target = XattrTarget::Fd(fd.as_fd());
        let flag = match flag {
            SetXattr::Create if attempt.noted(0) == Some(WAS_NOT) => SetXattr::Any,
            SetXattr::Create if !matches!(attempt, Attempt::Only) => {
                let was = sys::xattr_if_set(target, &on_disk)?.is_some();
                attempt.note(0, if was { WAS } else { WAS_NOT });
                flag
            }
            SetXattr::Any | SetXattr::Create | SetXattr::Replace => flag,
        };
        let set = sys::set_xattr(target, &on_disk, value, flag);
        node.attributes_change();
        Ok(set?)
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, ino: Ino, name: &OsStr, attempt: Attempt<'_>) -> Result<()> {
        self.check_xattrs()?;
        let namespace = self.changeable()?.namespace();
        // A file is not copied up for an attribute that it has not got.
        match self.get_xattr(ino, name) {
            Err(error) if attempt.noted(0) == Some(WAS) && error.errno() == Errno::ENODATA => {
                return Ok(());
            }
            found => drop(found?),
        }
        attempt.note(0, WAS);
        let on_disk = namespace.on_disk(name).ok_or(Error::NoXattr)?;
        let node = self.node(&self.place(ino)?)?;
        self.copy_up(&node, Need::Metadata)?;
        let (fd, _) = self.open_node(&node)?;
        let removed = sys::remove_xattr(XattrTarget::Fd(fd.as_fd()), &on_disk);
        node.attributes_change();
        match removed {
            Err(error) if error.errno() == Errno::ENODATA => Err(Error::NoXattr),
            other => Ok(other?),
        }
    }

    fn check_xattrs(&self) -> Result<()> {
        match self.no_xattrs {
            true => Err(Error::Absent("the mount has no extended attributes (noxattrs)")),
            false => Ok(()),
        }
    }

    /// Returns all attributes of the file at a place.
    pub(crate) fn xattrs_at(&self, place: &Place) -> Result<Vec<(OsString, Vec<u8>)>> {
        let node = match place {
            Place::Node(node) if node.is_in_upper() => node,
            _ => return self.lower_xattrs(place),
        };
        let namespace = self.writable_or_seen()?.namespace();
        let (fd, _) = self.open_node(node)?;
        let target = XattrTarget::Fd(fd.as_fd());
        let mut xattrs = Vec::new();
        for on_disk in sys::list_xattr(target)? {
            if let Some(name) = namespace.seen(&on_disk)
                && let Some(value) = sys::xattr_if_set(target, &on_disk)?
            {
                xattrs.push((name, value));
            }
        }
        Ok(xattrs)
    }

    fn lower_xattrs(&self, place: &Place) -> Result<Vec<(OsString, Vec<u8>)>> {
        let id = match place {
            Place::Lower(found) => found.id,
            Place::Node(node) => node.lower.ok_or(Error::Stale(node.ino.0))?,
        };
        self.lower.xattrs(id)
    }
}

/// Checks that attributes of a name's kind exist at all. Without privilege everything is kept under
/// other names, which the file system would take.
fn check_settable(name: &OsStr) -> Result<()> {
    let name = name.as_encoded_bytes();
    let kinds = ["user.", "trusted.", "security.", "system.posix_acl_"];
    match kinds.iter().any(|kind| name.starts_with(kind.as_bytes())) {
        true => Ok(()),
        false => Err(Error::Unsupported("there are no extended attributes of this kind")),
    }
}
