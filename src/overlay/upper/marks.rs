//! What the overlay writes beside a file of the upper: extended attributes, in the kernel's form.
//!
//! Kernel documentation, `filesystems/overlayfs.rst`: `opaque`, `redirect`, `metacopy`, `impure`
//! and `whiteout`, below `trusted.overlay.` or, without privilege, `user.overlay.`. Ours are
//! `strata.origin`: the lower file that an upper one was copied from, which gives it its inode
//! number, `strata.redirects`, `strata.device` and `strata.links`; the kernel ignores them. A program
//! that sets an attribute of these names gets it escaped, as `overlay.overlay.`.
//!
//! Without privilege the owner, mode and type that the file cannot have are kept as
//! `user.containers.override_stat`, the form that podman's tools share, and attributes outside of
//! `user.` below `user.containers.override_`. With privilege that can be
//! `security.fuseoverlayfs.override_stat`, which no user of the mount can reach.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::layer::Kind;
use crate::overlay::error::{Error, Result};
use crate::sys::{self, SetXattr, Stat, XattrTarget};

const TRUSTED: &str = "trusted.overlay.";
const USER: &str = "user.overlay.";
/// What comes between the prefix and the rest of an escaped name.
const ESCAPE: &str = "overlay.";
/// Marks of an opaque directory as any driver writes them.
const OPAQUE_ELSEWHERE: [&str; 3] =
    ["trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"];
const OVERRIDE: &str = "user.containers.override_";
const OVERRIDE_STAT: &str = "user.containers.override_stat";
/// Below this is what fuse-overlayfs keeps with privilege.
const GUARDED: &str = "security.fuseoverlayfs.";
const GUARDED_STAT: &str = "security.fuseoverlayfs.override_stat";
const ACL: &str = "system.posix_acl_";

/// A mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A directory hides what the lower has in it (`y`), or holds whiteouts that are attributes
    /// (`x`).
    Opaque,
    /// Where in the lower the rest of a directory is.
    Redirect,
    /// The content is still in the lower.
    Metacopy,
    /// A directory without a lower one has files that come from the lower.
    Impure,
    /// An empty file stands for one that is gone.
    Whiteout,
    /// The lower file that this one was copied from.
    Origin,
    /// On the root: somewhere below it is a directory with a redirect.
    Redirects,
    /// A device stands for the device 0/0, which would be a whiteout.
    Device,
    /// How many names the union shows of a file of the index; see [`KeptLinks`].
    Links,
}

impl Mark {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Opaque => "opaque",
            Self::Redirect => "redirect",
            Self::Metacopy => "metacopy",
            Self::Impure => "impure",
            Self::Whiteout => "whiteout",
            Self::Origin => "strata.origin",
            Self::Redirects => "strata.redirects",
            Self::Device => "strata.device",
            Self::Links => "strata.links",
        }
    }
}

/// Below which names the marks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// `trusted.overlay.`: with privilege, as root's mounts have it.
    Trusted,
    /// `user.overlay.`: without (`userxattr`).
    User,
    /// The same, and what a file cannot have itself is in marks too.
    Mapped,
    /// As with privilege, and owners, modes and types are in marks.
    Guarded,
}

/// What is kept of how many names the union shows of a file whose names are not all in the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptLinks {
    /// So many more than it has links here: those that only the lower has, less the one in the index.
    More(i64),
    /// So many, whatever links it has: it was about to get one for a name that is shown already.
    All(i64),
}

impl KeptLinks {
    fn parse(value: &[u8]) -> Option<Self> {
        match value.strip_prefix(b"=") {
            Some(all) => parse_decimal(all).map(Self::All),
            None => parse_decimal(value).map(Self::More),
        }
    }

    /// Returns how many more names the union shows than these links.
    pub(crate) fn more_than(self, links: u64) -> i64 {
        match self {
            Self::More(more) => more,
            Self::All(all) => all - i64::try_from(links).unwrap_or(i64::MAX),
        }
    }

    /// Returns what is kept, in the form of the mark.
    pub(crate) fn text(self) -> String {
        match self {
            Self::More(more) => more.to_string(),
            Self::All(all) => format!("={all}"),
        }
    }
}

/// What the marks of a file say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    /// It hides what the lower has in it.
    pub(crate) opaque: bool,
    /// Its whiteouts are attributes of empty files.
    pub(crate) xattr_whiteouts: bool,
    pub(crate) redirect: Option<OsString>,
    pub(crate) metacopy: bool,
    pub(crate) impure: bool,
    pub(crate) origin: Option<u64>,
    pub(crate) redirects: bool,
    /// It stands for the device 0/0.
    pub(crate) device: bool,
    pub(crate) links: Option<KeptLinks>,
    pub(crate) stat: Option<OverrideStat>,
}

impl Namespace {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Trusted | Self::Guarded => TRUSTED,
            Self::User | Self::Mapped => USER,
        }
    }

    /// Returns the name of the mark that says owner, mode and type.
    const fn stat_name(self) -> Option<&'static str> {
        match self {
            Self::Trusted | Self::User => None,
            Self::Mapped => Some(OVERRIDE_STAT),
            Self::Guarded => Some(GUARDED_STAT),
        }
    }

    fn name(self, mark: Mark) -> OsString {
        format!("{}{}", self.prefix(), mark.suffix()).into()
    }

    /// Sets a mark.
    pub(crate) fn set(self, target: XattrTarget<'_>, mark: Mark, value: &[u8]) -> Result<()> {
        Ok(sys::set_xattr(target, &self.name(mark), value, SetXattr::Any)?)
    }

    /// Takes a mark away; it need not be there.
    pub(crate) fn clear(self, target: XattrTarget<'_>, mark: Mark) -> Result<()> {
        match sys::remove_xattr(target, &self.name(mark)) {
            Err(error) if error.errno() == sys::Errno::ENODATA => Ok(()),
            other => Ok(other?),
        }
    }

    /// Reads all marks of a file.
    pub(crate) fn read(self, target: XattrTarget<'_>) -> Result<Marks> {
        self.read_named(target, &sys::list_xattr(target)?)
    }

    fn read_named(self, target: XattrTarget<'_>, names: &[OsString]) -> Result<Marks> {
        let mut marks = Marks::default();
        for name in names {
            let Some(name) = name.to_str() else { continue };
            let suffix = name.strip_prefix(self.prefix()).unwrap_or("");
            let is_stat = self.stat_name() == Some(name);
            if suffix.is_empty() && !is_stat {
                continue;
            }
            let Some(value) = sys::xattr_if_set(target, name.as_ref())? else { continue };
            match suffix {
                "opaque" => {
                    marks.opaque = value.starts_with(b"y");
                    marks.xattr_whiteouts = value.starts_with(b"x");
                }
                "redirect" => marks.redirect = Some(OsString::from_vec(value)),
                "metacopy" => marks.metacopy = true,
                "impure" => marks.impure = true,
                "strata.origin" => marks.origin = parse_decimal(&value),
                "strata.redirects" => marks.redirects = true,
                "strata.device" => marks.device = true,
                "strata.links" => marks.links = KeptLinks::parse(&value),
                "" if is_stat => marks.stat = OverrideStat::parse(&value),
                _ => {}
            }
        }
        Ok(marks)
    }

    /// Tells whether a file stands for one that is gone: a device 0/0 does, and in a directory that says
    /// so an empty file with a mark.
    pub(crate) fn is_whiteout(
        self,
        stat: &Stat,
        xattr_whiteouts: bool,
        target: XattrTarget<'_>,
    ) -> Result<bool> {
        if stat.is_whiteout_device() {
            return Ok(true);
        }
        if !xattr_whiteouts || !stat.is_regular() || stat.size > 0 {
            return Ok(false);
        }
        Ok(sys::xattr_if_set(target, &self.name(Mark::Whiteout))?.is_some())
    }

    /// Reads the marks of a file of a lower directory, which any driver may have written.
    pub(crate) fn read_lower(self, target: XattrTarget<'_>) -> Result<Marks> {
        let names = sys::list_xattr(target)?;
        let mut marks = self.read_named(target, &names)?;
        for name in names.iter().filter(|name| OPAQUE_ELSEWHERE.iter().any(|other| other == name)) {
            if !marks.opaque {
                let value = sys::xattr_if_set(target, name)?;
                marks.opaque = value.is_some_and(|value| value.starts_with(b"y"));
            }
        }
        Ok(marks)
    }

    /// Returns the name on disk of an attribute that a program sees as `name`; none if no program
    /// can see it under that name.
    pub(crate) fn on_disk(self, name: &OsStr) -> Option<OsString> {
        if let Some(rest) = strip_prefix(name, self.prefix()) {
            return Some(concat(&[self.prefix().as_bytes(), ESCAPE.as_bytes(), rest]));
        }
        match self {
            Self::Trusted | Self::User => Some(name.to_owned()),
            // The permissions of the file itself are not those that it shows.
            Self::Guarded if is_kept_from_programs(name) => None,
            Self::Guarded => Some(name.to_owned()),
            Self::Mapped if strip_prefix(name, OVERRIDE).is_some() => None,
            Self::Mapped if strip_prefix(name, "user.").is_some() => Some(name.to_owned()),
            Self::Mapped => Some(concat(&[OVERRIDE.as_bytes(), name.as_bytes()])),
        }
    }

    /// Returns the name that a program sees of an attribute on disk; none if it is hidden.
    pub(crate) fn seen(self, on_disk: &OsStr) -> Option<OsString> {
        if let Some(rest) = strip_prefix(on_disk, self.prefix()) {
            let rest = rest.strip_prefix(ESCAPE.as_bytes())?;
            return Some(concat(&[self.prefix().as_bytes(), rest]));
        }
        match self {
            Self::Trusted | Self::User => return Some(on_disk.to_owned()),
            Self::Guarded => return (!is_kept_from_programs(on_disk)).then(|| on_disk.to_owned()),
            Self::Mapped => {}
        }
        match strip_prefix(on_disk, OVERRIDE) {
            Some(b"stat") => None,
            Some(name) => Some(concat(&[name])),
            // What the file system itself keeps with our files is not the image's.
            None => strip_prefix(on_disk, "user.").map(|_| on_disk.to_owned()),
        }
    }

    /// Writes owner, mode and type where the file itself cannot have them.
    pub(crate) fn set_stat(self, target: XattrTarget<'_>, stat: &OverrideStat) -> Result<()> {
        let text = stat.to_string();
        let Some(name) = self.stat_name() else {
            return Err(Error::Invalid("owners are not in marks"));
        };
        Ok(sys::set_xattr(target, name.as_ref(), text.as_bytes(), SetXattr::Any)?)
    }

    /// Tells whether attributes of this namespace can be set on the file.
    pub(crate) fn works_on(self, target: XattrTarget<'_>) -> bool {
        let below = |prefix: &str| {
            let name: OsString = format!("{prefix}strata.probe").into();
            sys::set_xattr(target, &name, b"y", SetXattr::Any)
                .and_then(|()| sys::remove_xattr(target, &name))
                .is_ok()
        };
        below(self.prefix()) && (self != Self::Guarded || below(GUARDED))
    }
}

/// Tells whether no program can have an attribute where the privileged keep owners in marks.
fn is_kept_from_programs(name: &OsStr) -> bool {
    strip_prefix(name, GUARDED).is_some() || strip_prefix(name, ACL).is_some()
}

fn parse_decimal<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn strip_prefix<'a>(name: &'a OsStr, prefix: &str) -> Option<&'a [u8]> {
    name.as_bytes().strip_prefix(prefix.as_bytes())
}

fn concat(parts: &[&[u8]]) -> OsString {
    OsString::from_vec(parts.concat())
}

/// Owner, mode and type of a file, when its own say something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverrideStat {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permissions, without the type.
    pub(crate) mode: u32,
    /// Another type than a regular file or directory, and the number of a device.
    pub(crate) kind: Option<(Kind, u64)>,
}

impl OverrideStat {
    /// Returns what a file shows whose own attributes are `stat`.
    pub(crate) fn apply(self, stat: Stat) -> Stat {
        let (kind, rdev) = self.kind.unwrap_or((Kind::of(stat.mode), stat.rdev));
        let has_size = matches!(kind, Kind::Regular | Kind::Directory | Kind::Symlink);
        Stat {
            uid: self.uid,
            gid: self.gid,
            mode: kind.mode() | self.mode,
            rdev,
            size: if has_size { stat.size } else { 0 },
            ..stat
        }
    }

    /// Parses `uid:gid:mode[:type]`.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(value).ok()?.splitn(4, ':');
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let mode = u32::from_str_radix(fields.next()?, 8).ok()? & sys::mode::PERMISSIONS;
        let kind = match fields.next() {
            None | Some("file" | "dir") => None,
            Some(text) => Some(parse_kind(text)?),
        };
        Some(Self { uid, gid, mode, kind })
    }
}

impl std::fmt::Display for OverrideStat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{:o}", self.uid, self.gid, self.mode)?;
        let Some((kind, device)) = self.kind else { return Ok(()) };
        let (major, minor) = sys::split_device(device);
        match kind {
            Kind::Regular | Kind::Directory => Ok(()),
            Kind::Symlink => f.write_str(":symlink"),
            Kind::Fifo => f.write_str(":pipe"),
            Kind::Socket => f.write_str(":socket"),
            Kind::Block => write!(f, ":block{major}:{minor}"),
            Kind::Character => write!(f, ":char{major}:{minor}"),
        }
    }
}

fn parse_kind(text: &str) -> Option<(Kind, u64)> {
    let device = |numbers: &str| {
        let (major, minor) = numbers.split_once(':')?;
        Some(sys::make_device(major.parse().ok()?, minor.parse().ok()?))
    };
    match text {
        "symlink" => Some((Kind::Symlink, 0)),
        "pipe" => Some((Kind::Fifo, 0)),
        "socket" => Some((Kind::Socket, 0)),
        _ => match (text.strip_prefix("block"), text.strip_prefix("char")) {
            (Some(numbers), _) => Some((Kind::Block, device(numbers)?)),
            (_, Some(numbers)) => Some((Kind::Character, device(numbers)?)),
            _ => None,
        },
    }
}

/// Checks a name of an attribute that a program gave.
pub(crate) fn check_name(name: &OsStr) -> Result<()> {
    if name.is_empty() || name.len() > 255 {
        return Err(Error::Invalid("the name of an extended attribute has 1 to 255 bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_modes_and_types_survive_writing() {
        for (text, kind) in [
            ("0:0:755", None),
            ("1:4294967295:4755", None),
            ("0:0:777:symlink", Some((Kind::Symlink, 0))),
            ("0:0:660:block8:0", Some((Kind::Block, sys::make_device(8, 0)))),
            ("0:5:620:char136:300", Some((Kind::Character, sys::make_device(136, 300)))),
            ("0:0:600:pipe", Some((Kind::Fifo, 0))),
            ("0:0:600:socket", Some((Kind::Socket, 0))),
        ] {
            let stat = OverrideStat::parse(text.as_bytes()).unwrap();
            assert_eq!(stat.kind, kind, "{text}");
            assert_eq!(stat.to_string(), text);
        }
        for text in ["", "0:0", "a:0:755", "0:0:888", "0:0:755:door", "0:0:755:block8"] {
            assert_eq!(OverrideStat::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn how_many_names_are_shown_survives_writing() {
        for (links, text, more) in [
            (KeptLinks::More(2), "2", 2),
            (KeptLinks::More(-1), "-1", -1),
            (KeptLinks::All(3), "=3", 1),
        ] {
            assert_eq!(links.text(), text);
            assert_eq!(KeptLinks::parse(text.as_bytes()), Some(links));
            assert_eq!(links.more_than(2), more);
        }
        assert_eq!(KeptLinks::parse(b"=x"), None);
    }

    #[test]
    fn names_of_marks_are_escaped_and_hidden() {
        use Namespace::{Guarded, Mapped, Trusted, User};
        for (namespace, seen, on_disk) in [
            (Trusted, "user.x", Some("user.x")),
            (Trusted, "security.capability", Some("security.capability")),
            (Trusted, "trusted.overlay.opaque", Some("trusted.overlay.overlay.opaque")),
            (Trusted, "user.overlay.opaque", Some("user.overlay.opaque")),
            (User, "user.overlay.opaque", Some("user.overlay.overlay.opaque")),
            (User, "security.capability", Some("security.capability")),
            (Mapped, "user.x", Some("user.x")),
            (Mapped, "user.overlay.opaque", Some("user.overlay.overlay.opaque")),
            (Mapped, "security.capability", Some("user.containers.override_security.capability")),
            (Mapped, "user.containers.override_stat", None),
            (Guarded, "security.capability", Some("security.capability")),
            (Guarded, "trusted.overlay.opaque", Some("trusted.overlay.overlay.opaque")),
            (Guarded, "user.containers.override_stat", Some("user.containers.override_stat")),
            (Guarded, "security.fuseoverlayfs.override_stat", None),
            (Guarded, "system.posix_acl_access", None),
        ] {
            let found = namespace.on_disk(seen.as_ref());
            assert_eq!(found.as_deref(), on_disk.map(OsStr::new), "{seen}");
            if let Some(on_disk) = on_disk {
                let back = namespace.seen(on_disk.as_ref());
                assert_eq!(back.as_deref(), Some(OsStr::new(seen)), "{on_disk}");
            }
        }
        assert_eq!(Trusted.seen("trusted.overlay.origin".as_ref()), None);
        assert_eq!(Mapped.seen("user.containers.override_stat".as_ref()), None);
        assert_eq!(Guarded.seen("security.fuseoverlayfs.override_stat".as_ref()), None);
        assert_eq!(Mapped.seen("security.selinux".as_ref()), None);
    }
}
