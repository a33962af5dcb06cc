//! What follows `-o`: the options that mount(8) shares with every file system, and ours.

use crate::fuse::error::{Error, Result};
use crate::sys::MountFlags;

/// How a tree is mounted.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    pub(crate) flags: MountFlags,
    /// Whether others than who mounts it may use it; as the process may, if it is not said.
    pub(crate) allow_other: Option<bool>,
    /// Whether the kernel checks permissions; as the owners are kept, if it is not said.
    pub(crate) default_permissions: Option<bool>,
    /// Nothing is synced.
    volatile: bool,
    /// What the first column of /proc/mounts shows.
    pub(crate) source: String,
}

impl MountOptions {
    /// Returns the options in comma-separated lists; later ones win.
    ///
    /// # Errors
    /// [`Error::UnknownOption`] names the first that is not known.
    pub fn parse<S: AsRef<str>>(lists: &[S]) -> Result<Self> {
        let mut options = Self { source: "strata".to_owned(), ..Self::default() };
        for option in lists.iter().flat_map(|list| list.as_ref().split(',')) {
            options.add(option)?;
        }
        Ok(options)
    }

    fn add(&mut self, option: &str) -> Result<()> {
        match option {
            "" | "defaults" => {}
            "allow_other" => self.allow_other = Some(true),
            "noallow_other" => self.allow_other = Some(false),
            "default_permissions" => self.default_permissions = Some(true),
            "volatile" => self.volatile = true,
            _ => match MountFlags::named(option) {
                Some((flag, set)) => self.flags.apply(flag, set),
                None => return Err(Error::UnknownOption(option.to_owned())),
            },
        }
        Ok(())
    }

    /// Tells whether the mount shall not be written to.
    pub fn is_read_only(&self) -> bool {
        MountFlags::named("ro").is_some_and(|(flag, _)| self.flags.contains(flag))
    }

    /// Makes the mount one that cannot be written to.
    pub fn set_read_only(&mut self) {
        if let Some((flag, set)) = MountFlags::named("ro") {
            self.flags.apply(flag, set);
        }
    }

    /// Lets the kernel check permissions.
    pub const fn check_permissions(&mut self) {
        self.default_permissions = Some(true);
    }

    /// Tells whether nothing is to be synced.
    pub const fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Sets what /proc/mounts shows as the source; a comma would end it there.
    pub fn set_source(&mut self, source: &str) {
        self.source = source.replace([',', '\\', '\0'], "_");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_later_ones_win() {
        let options = MountOptions::parse(&["ro,allow_other,", "rw,volatile,nosuid"]).unwrap();
        assert!(!options.is_read_only());
        assert!(options.is_volatile());
        assert_eq!(options.allow_other, Some(true));
        let mut options = MountOptions::parse(&[] as &[&str]).unwrap();
        assert!(!options.is_read_only());
        options.set_read_only();
        assert!(options.is_read_only());
    }

    #[test]
    fn an_unknown_option_is_named() {
        let error = MountOptions::parse(&["ro,sparkle"]).unwrap_err().to_string();
        assert!(error.starts_with("mount option \"sparkle\" is not known"), "{error}");
    }

    #[test]
    fn a_source_cannot_smuggle_options_in() {
        let mut options = MountOptions::default();
        options.set_source("image,allow_other");
        assert_eq!(options.source, "image_allow_other");
    }
}
