//! A name that takes little memory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Most bytes of a name that has no memory of its own.
const SHORT: usize = 22;

/// The name of a file, or a path.
#[derive(Debug)]
pub(super) enum Name {
    /// In place, as most are.
    Short { len: u8, bytes: [u8; SHORT] },
    /// Elsewhere.
    Long(Box<[u8]>),
}

impl Name {
    pub(super) fn new(name: &OsStr) -> Self {
        let name = name.as_bytes();
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(name);
                Self::Short { len, bytes }
            }
            _ => Self::Long(name.into()),
        }
    }

    pub(super) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_was_made_of() {
        for len in [0, 1, 21, 22, 23, 255, 256, 4000] {
            let name = "\u{e4}".repeat(len);
            let name = OsStr::from_bytes(&name.as_bytes()[..len]);
            assert_eq!(Name::new(name).as_os_str(), name, "{len}");
        }
        assert_eq!(size_of::<Name>(), 24);
    }
}
