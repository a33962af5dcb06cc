//! What follows `-o`: the options that mount(8) shares with every file system, and ours.

use std::time::Duration;

use crate::fuse::convert::FOREVER;
use crate::fuse::error::{Error, Result};
use crate::overlay::Verify;
use crate::sys::MountFlags;

/// How requests come from the kernel, and answers go to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// By reading and writing `/dev/fuse`.
    DevFuse,
    /// Through io_uring, on the processor that asks (Linux 6.14).
    IoUring,
}

impl Transport {
    /// Returns its name, as an option has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DevFuse => "dev-fuse",
            Self::IoUring => "io-uring",
        }
    }
}

/// How contents get to programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// The kernel opens files without asking, asks for contents once, and keeps them.
    Cache,
    /// The kernel asks when a file is opened, and reads and writes the one that has the content itself
    /// (Linux 6.9, with the privilege of root).
    Passthrough,
}

impl Data {
    /// Returns its name, as an option has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Passthrough => "passthrough",
        }
    }
}

/// How a tree is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    pub(crate) flags: MountFlags,
    /// Whether others than who mounts it may use it; as the process may, if it is not said.
    pub(crate) allow_other: Option<bool>,
    /// Whether the kernel checks permissions; as the owners are kept, if it is not said.
    pub(crate) default_permissions: Option<bool>,
    /// Nothing is synced.
    volatile: bool,
    /// How long the kernel may believe what it was told.
    pub(crate) timeout: Duration,
    /// How requests come; the best that there is, if it is not said.
    pub(crate) transport: Option<Transport>,
    /// When contents of the lower are checked.
    verify: Verify,
    /// How contents get to programs; as is best for the mount, if it is not said.
    pub(crate) data: Option<Data>,
    /// Files have no access control lists.
    pub(crate) no_acl: bool,
    /// What SELinux takes for the label of all files, with the name of the option.
    pub(crate) context: Option<String>,
    /// The mount lives on when its server dies.
    survive: bool,
    /// What the first column of /proc/mounts shows.
    pub(crate) source: String,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            flags: MountFlags::default(),
            allow_other: None,
            default_permissions: None,
            volatile: false,
            timeout: FOREVER,
            transport: None,
            verify: Verify::Off,
            data: None,
            no_acl: false,
            context: None,
            survive: false,
            source: "strata".to_owned(),
        }
    }
}

impl MountOptions {
    /// Returns the options in comma-separated lists; later ones win.
    ///
    /// # Errors
    /// [`Error::UnknownOption`] names the first that is not known.
    pub fn parse<S: AsRef<str>>(lists: &[S]) -> Result<Self> {
        let mut options = Self::default();
        for option in lists.iter().flat_map(|list| split(list.as_ref())) {
            options.add(option)?;
        }
        if options.survive && options.transport == Some(Transport::IoUring) {
            return Err(Error::RingsDoNotSurvive);
        }
        if options.survive && options.data == Some(Data::Passthrough) {
            return Err(Error::PassthroughDoesNotSurvive);
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
            "survive" => self.survive = true,
            "nosurvive" => self.survive = false,
            "acl" => self.no_acl = false,
            "noacl" => self.no_acl = true,
            _ if is_label(option) => self.context = Some(option.to_owned()),
            _ if option.starts_with("timeout=") => self.timeout = timeout(option)?,
            "transport=auto" => self.transport = None,
            "transport=dev-fuse" => self.transport = Some(Transport::DevFuse),
            "transport=io-uring" => self.transport = Some(Transport::IoUring),
            _ if option.starts_with("transport=") => {
                return Err(Error::BadTransport(option.to_owned()));
            }
            "verify=off" => self.verify = Verify::Off,
            "verify=open" => self.verify = Verify::Open,
            "verify=always" => self.verify = Verify::Always,
            _ if option.starts_with("verify=") => return Err(Error::BadVerify(option.to_owned())),
            "data=auto" => self.data = None,
            "data=cache" => self.data = Some(Data::Cache),
            "data=passthrough" => self.data = Some(Data::Passthrough),
            _ if option.starts_with("data=") => return Err(Error::BadData(option.to_owned())),
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

    /// Returns when contents of the lower are checked.
    pub const fn verify(&self) -> Verify {
        self.verify
    }

    /// Tells whether the mount is to live on when its server dies.
    pub const fn survives(&self) -> bool {
        self.survive
    }

    /// Sets what /proc/mounts shows as the source; a comma would end it there.
    pub fn set_source(&mut self, source: &str) {
        self.source = source.replace([',', '\\', '\0'], "_");
    }
}

/// Returns the options of a list. A comma between quotation marks is part of one: the labels of
/// SELinux have them.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    list.split(move |character| {
        is_quoted ^= character == '"';
        character == ',' && !is_quoted
    })
}

/// Tells whether an option is one of the four by which SELinux labels a mount.
fn is_label(option: &str) -> bool {
    ["context=", "fscontext=", "defcontext=", "rootcontext="]
        .iter()
        .any(|name| option.starts_with(name))
}

/// Returns the time of an option `timeout=SECONDS`.
fn timeout(option: &str) -> Result<Duration> {
    let seconds = option.split_once('=').and_then(|(_, value)| value.parse::<f64>().ok());
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.map(|time| time.min(FOREVER)).ok_or_else(|| Error::BadTimeout(option.to_owned()))
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
    fn a_label_keeps_its_commas_and_a_timeout_is_a_number() {
        let label = "context=\"system_u:object_r:container_file_t:s0:c1,c2\"";
        let options = MountOptions::parse(&[format!("noacl,{label},timeout=1.5,ro")]).unwrap();
        assert_eq!(options.context.as_deref(), Some(label));
        assert_eq!(options.timeout, Duration::from_millis(1500));
        assert!(options.no_acl && options.is_read_only());
        for bad in ["timeout=", "timeout=-1", "timeout=soon", "timeout=nan"] {
            let error = MountOptions::parse(&[bad]).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("seconds"), "{error}");
        }
    }

    #[test]
    fn contents_are_checked_when_it_is_said() {
        let verify = |lists: &[&str]| MountOptions::parse(lists).map(|options| options.verify());
        assert_eq!(verify(&[]).unwrap(), Verify::Off);
        assert_eq!(verify(&["verify=always,ro", "verify=open"]).unwrap(), Verify::Open);
        let error = verify(&["verify=often"]).unwrap_err().to_string();
        assert!(error.contains("\"verify=often\"") && error.contains("always"), "{error}");
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
