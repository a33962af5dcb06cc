//! How a layer's tar says that something is gone: names that begin with `.wh.`.
//!
//! OCI image-spec, "Representing changes". The other forms, those of a directory on disk, belong to
//! the overlay's upper.

use crate::layer::limits::{XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX};

/// Prefix of a name that hides the rest of it.
pub const PREFIX: &[u8] = b".wh.";
/// The name that makes its directory hide all that lower layers have in it.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of what AUFS kept for itself; some images still have it.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// What a name of a tar says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker<'a> {
    /// The directory is opaque.
    Opaque,
    /// This name is gone.
    Whiteout(&'a [u8]),
}

impl Marker<'_> {
    /// Returns what `name` says; none when it is an ordinary name.
    ///
    /// # Errors
    /// It would hide what has no name.
    pub(crate) fn of(name: &[u8]) -> Result<Option<Marker<'_>>, &'static str> {
        if name == OPAQUE {
            return Ok(Some(Marker::Opaque));
        }
        match name.strip_prefix(PREFIX) {
            None => Ok(None),
            Some(b"") => Err("a whiteout without a name"),
            Some(b"." | b"..") => Err("a whiteout of its own directory"),
            Some(hidden) => Ok(Some(Marker::Whiteout(hidden))),
        }
    }
}

/// Tells whether a name is one that AUFS kept for itself.
pub(crate) fn is_aufs_metadata(name: &[u8]) -> bool {
    name.starts_with(AUFS_PREFIX) && name != OPAQUE
}

/// Tells whether a file of this name cannot be in a layer, where the name means something else.
pub fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// Checks that attributes are such as a file can have.
pub(crate) fn check_xattrs(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), String> {
    for (name, value) in xattrs {
        if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) {
            let text = "the name of an extended attribute is empty, too long or has a NUL in it";
            return Err(text.to_owned());
        }
        if value.len() > XATTR_SIZE_MAX {
            let len = value.len();
            return Err(format!(
                "an extended attribute of {len} bytes, {XATTR_SIZE_MAX} is the most"
            ));
        }
    }
    let listed: usize = xattrs.iter().map(|(name, _)| name.len() + 1).sum();
    if listed > XATTR_LIST_MAX {
        return Err(format!(
            "extended attributes with names of {listed} bytes together, {XATTR_LIST_MAX} is the most"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (name, marker) in [
            ("file", Ok(None)),
            (".wh", Ok(None)),
            ("a.wh.b", Ok(None)),
            (".wh..wh..opq", Ok(Some(Marker::Opaque))),
            (".wh.file", Ok(Some(Marker::Whiteout(b"file")))),
            (".wh..hidden", Ok(Some(Marker::Whiteout(b".hidden")))),
            (".wh.", Err("a whiteout without a name")),
            (".wh..", Err("a whiteout of its own directory")),
            (".wh...", Err("a whiteout of its own directory")),
        ] {
            assert_eq!(Marker::of(name.as_bytes()), marker, "{name}");
        }
        assert!(is_aufs_metadata(b".wh..wh.plnk"));
        assert!(!is_aufs_metadata(OPAQUE));
    }
}
