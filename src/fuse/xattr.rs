//! The requests about extended attributes.

use std::os::unix::ffi::OsStrExt;

use crate::fuse::abi::{GetxattrIn, GetxattrOut, SetxattrIn};
use crate::fuse::answer::Answer;
use crate::fuse::ops::Requests;
use crate::fuse::request::{Args, Request};
use crate::overlay::{Error, Result};
use crate::sys::SetXattr;

impl Requests {
    pub(crate) fn setxattr(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let set: SetxattrIn = args.take()?;
        let name = args.name()?;
        self.check_acl(name.as_bytes())?;
        let flag = SetXattr::from_flags(set.flags.cast_signed());
        let value = args.bytes(set.size)?;
        self.overlay().set_xattr(request.ino(), name, value, flag, request.attempt())
    }

    /// Checks that an attribute may be used, if it is an access control list.
    fn check_acl(&self, name: &[u8]) -> Result<()> {
        match is_acl(name) && !self.has_acl() {
            true => Err(Error::Unsupported("the mount has no access control lists")),
            false => Ok(()),
        }
    }

    pub(crate) fn getxattr(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        to: &mut Answer<'_>,
    ) -> Result<()> {
        let get: GetxattrIn = args.take()?;
        let name = args.name()?;
        self.check_acl(name.as_bytes())?;
        put_sized(&self.overlay().get_xattr(request.ino(), name)?, get.size, to)
    }

    pub(crate) fn listxattr(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        to: &mut Answer<'_>,
    ) -> Result<()> {
        let list: GetxattrIn = args.take()?;
        // As everywhere, only root sees what only root can set.
        let is_shown = |name: &[u8]| {
            (request.is_root() || !name.starts_with(b"trusted."))
                && (self.has_acl() || !is_acl(name))
        };
        let mut names = Vec::new();
        for name in self.overlay().list_xattr(request.ino())? {
            if is_shown(name.as_bytes()) {
                names.extend_from_slice(name.as_bytes());
                names.push(0);
            }
        }
        put_sized(&names, list.size, to)
    }

    pub(crate) fn removexattr(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let name = args.name()?;
        self.check_acl(name.as_bytes())?;
        self.overlay().remove_xattr(request.ino(), name, request.attempt())
    }
}

/// Tells whether an attribute is an access control list.
fn is_acl(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_")
}

/// Answers with bytes, or with how many there are when the kernel asks for that.
fn put_sized(bytes: &[u8], size: u32, to: &mut Answer<'_>) -> Result<()> {
    match size {
        0 => {
            let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            to.put(&GetxattrOut { size, padding: 0 })
        }
        size if bytes.len() <= size as usize => to.bytes(bytes),
        _ => Err(Error::TooSmall),
    }
}
