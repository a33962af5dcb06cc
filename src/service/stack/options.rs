//! The options of an overlay driver, and what they mean.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::overlay::{IdRange, Ids, Links, Owners, Redirects, Sync};
use crate::service::error::{Error, Result};
use crate::service::runs_as_root;

/// An option that asks for what is so anyway, or for a way of working that there is no second one of.
struct Needless {
    name: &'static str,
    /// What may stand behind it: one of these words, or a number.
    values: &'static [&'static str],
    /// Why it changes nothing.
    reason: &'static str,
}

const SWITCH: &[&str] = &["0", "1"];
const NUMBERS: &str = "inode numbers are always unique and stay";
const SPLICING: &str = "strata decides how data gets to the kernel";
const CACHING: &str = "strata decides what the kernel keeps";

/// Options of fuse-overlayfs and the kernel that change nothing here.
const NEEDLESS: [Needless; 10] = [
    Needless { name: "xino", values: &["on", "off", "auto"], reason: NUMBERS },
    Needless { name: "nfs_filehandles", values: &["0", "1", "2"], reason: NUMBERS },
    Needless { name: "fast_ino", values: SWITCH, reason: NUMBERS },
    Needless {
        name: "nfs_export",
        values: &["on", "off"],
        reason: "file handles do not depend on it",
    },
    Needless { name: "threaded", values: SWITCH, reason: "there are always several threads" },
    Needless { name: "writeback", values: SWITCH, reason: CACHING },
    Needless { name: "kernel_cache", values: &[], reason: CACHING },
    Needless { name: "splice_read", values: &[], reason: SPLICING },
    Needless { name: "splice_write", values: &[], reason: SPLICING },
    Needless { name: "splice_move", values: &[], reason: SPLICING },
];

/// An option that is accepted and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// What was said.
    pub option: String,
    /// Why it changes nothing.
    pub reason: &'static str,
}

/// What a list of options says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackOptions {
    pub(super) lower: Vec<PathBuf>,
    pub(super) data_only: Vec<PathBuf>,
    pub(super) upper: Option<PathBuf>,
    pub(super) work: Option<PathBuf>,
    pub(super) user_marks: bool,
    pub(super) owners: Owners,
    pub(super) static_links: bool,
    pub(super) redirects: Redirects,
    pub(super) metacopy: bool,
    pub(super) links: Links,
    pub(super) no_xattrs: bool,
    pub(super) sync: Option<Sync>,
    pub(super) ids: Ids,
    /// Options of the mount itself.
    pub(super) mount: Vec<String>,
    /// Options that are accepted and change nothing.
    pub ignored: Vec<Ignored>,
}

impl StackOptions {
    /// Returns what lists of options say; later ones win.
    ///
    /// # Errors
    /// [`Error::StackOption`] names the first that is not known.
    pub fn parse(lists: &[OsString]) -> Result<Self> {
        let mut options = Self::default();
        for list in lists {
            for option in split(list.as_bytes()) {
                options.add(&option)?;
            }
        }
        if options.lower.is_empty() {
            return Err(Error::StackOption {
                option: "lowerdir".to_owned(),
                reason: "it is missing: say -o lowerdir=DIR[:DIR...]".to_owned(),
            });
        }
        options.check()?;
        if let (None, Some(work)) = (&options.upper, &options.work) {
            let option = format!("workdir={}", work.display());
            options
                .ignored
                .push(Ignored { option, reason: "without an upperdir= nothing changes" });
        }
        Ok(options)
    }

    /// Refuses what does not go together.
    fn check(&self) -> Result<()> {
        let refuse = |option: &str, reason: &str| {
            Err(Error::StackOption { option: option.to_owned(), reason: reason.to_owned() })
        };
        if self.upper.is_some() && self.work.is_none() {
            return refuse("upperdir", "it needs a workdir= on the same file system");
        }
        if self.metacopy && self.redirects == Redirects::Refused {
            return refuse(
                "metacopy=on",
                "what is copied so is not found with redirect_dir=nofollow",
            );
        }
        if self.owners == Owners::Guarded && !runs_as_root() {
            return refuse("xattr_permissions=1", "it takes privilege: say xattr_permissions=2");
        }
        Ok(())
    }

    /// Returns what the names of a file of the layers are: where nothing is copied up, nothing breaks.
    pub(super) fn kept_links(&self) -> Links {
        match self.upper {
            Some(_) => self.links,
            None => Links::Kept,
        }
    }

    fn add(&mut self, option: &[u8]) -> Result<()> {
        let text = String::from_utf8_lossy(option).into_owned();
        let (name, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => (option.get(..at).unwrap_or_default(), option.get(at + 1..)),
            None => (option, None),
        };
        let refuse = |reason: &str| {
            Err(Error::StackOption { option: text.clone(), reason: reason.to_owned() })
        };
        let path = |value: &[u8]| PathBuf::from(OsString::from_vec(unescape(value)));
        match (name, value) {
            (b"", _) => {}
            (b"lowerdir", Some(value)) => (self.lower, self.data_only) = lower_dirs(value),
            (b"upperdir", Some(value)) => self.upper = Some(path(value)),
            (b"workdir", Some(value)) => self.work = Some(path(value)),
            (b"userxattr", None) => self.user_marks = true,
            (b"static_nlink", None) => self.static_links = true,
            (b"volatile", None) => self.sync = Some(Sync::Volatile),
            (b"fsync", Some(value)) => match value {
                b"0" => self.sync = self.sync.or(Some(Sync::Never)),
                b"1" => self.sync = None,
                _ => return refuse("expected 0 or 1"),
            },
            (b"xattr_permissions", Some(value)) => match value {
                b"0" => self.owners = Owners::Native,
                b"1" => self.owners = Owners::Guarded,
                b"2" => self.owners = Owners::Mapped,
                _ => return refuse("expected 0, 1 or 2"),
            },
            (b"noxattrs", None | Some(b"1")) => self.no_xattrs = true,
            (b"noxattrs", Some(b"0")) => self.no_xattrs = false,
            (b"noxattrs", _) => return refuse("expected 0 or 1"),
            (b"uidmapping", Some(value)) => self.ids.users.ranges = ranges(value, &text)?,
            (b"gidmapping", Some(value)) => self.ids.groups.ranges = ranges(value, &text)?,
            (b"squash_to_root", None) => {
                let squash = |id: &mut Option<u32>| *id = id.or(Some(0));
                squash(&mut self.ids.users.squash);
                squash(&mut self.ids.groups.squash);
            }
            (b"squash_to_uid", Some(value)) => self.ids.users.squash = Some(number(value, &text)?),
            (b"squash_to_gid", Some(value)) => self.ids.groups.squash = Some(number(value, &text)?),
            (b"redirect_dir", Some(value)) => match value {
                b"on" => self.redirects = Redirects::Made,
                b"off" | b"follow" => self.redirects = Redirects::Followed,
                b"nofollow" => self.redirects = Redirects::Refused,
                _ => return refuse("expected on, off, follow or nofollow"),
            },
            (b"metacopy", Some(value)) => match value {
                b"on" => self.metacopy = true,
                b"off" => self.metacopy = false,
                _ => return refuse("expected on or off"),
            },
            (b"index", Some(value)) => match value {
                b"on" => self.links = Links::Kept,
                b"off" => self.links = Links::Broken,
                _ => return refuse("expected on or off"),
            },
            (b"max_write", Some(value)) => {
                number(value, &text)?;
                self.ignored.push(Ignored { option: text, reason: SPLICING });
            }
            (b"verify", Some(value)) if value != b"off" => {
                return refuse("directories have no sums that contents could be held against");
            }
            _ if needs_value(name) => return refuse("it needs a value"),
            _ => match NEEDLESS.iter().find(|known| known.name.as_bytes() == name) {
                Some(known) => self.ignore(known, value, text)?,
                None => self.mount.push(text),
            },
        }
        Ok(())
    }

    fn ignore(&mut self, known: &Needless, value: Option<&[u8]>, option: String) -> Result<()> {
        let fits = match value {
            Some(value) => known.values.iter().any(|word| word.as_bytes() == value),
            None => true,
        };
        if !fits {
            let reason = match known.values {
                [] => "it has no value".to_owned(),
                values => format!("expected one of {}", values.join(", ")),
            };
            return Err(Error::StackOption { option, reason });
        }
        self.ignored.push(Ignored { option, reason: known.reason });
        Ok(())
    }
}

/// Tells whether an option, which was given without one, needs a value.
fn needs_value(name: &[u8]) -> bool {
    [
        "lowerdir",
        "upperdir",
        "workdir",
        "fsync",
        "xattr_permissions",
        "uidmapping",
        "gidmapping",
        "squash_to_uid",
        "squash_to_gid",
        "redirect_dir",
        "metacopy",
        "index",
        "max_write",
    ]
    .iter()
    .any(|known| known.as_bytes() == name)
}

/// Splits a list of options at commas; one behind a backslash or in quotes does not count.
fn split(list: &[u8]) -> Vec<Vec<u8>> {
    let mut options = vec![Vec::new()];
    let (mut quoted, mut escaped) = (false, false);
    for byte in list {
        if *byte == b',' && !quoted && !escaped {
            options.push(Vec::new());
            continue;
        }
        quoted ^= *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        if let Some(option) = options.last_mut() {
            option.push(*byte);
        }
    }
    options
}

/// Returns the directories of `lowerdir`, and behind `::` those that only give contents.
fn lower_dirs(value: &[u8]) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut dirs, mut data_only) = (Vec::new(), Vec::new());
    let (mut part, mut escaped, mut is_data) = (Vec::new(), false, false);
    let mut end = |part: &mut Vec<u8>, is_data: &mut bool| {
        let raw = std::mem::take(part);
        if raw.is_empty() {
            *is_data = true;
            return;
        }
        let path = PathBuf::from(OsString::from_vec(unescape(&raw)));
        if *is_data { data_only.push(path) } else { dirs.push(path) }
    };
    for byte in value {
        if *byte == b':' && !escaped {
            end(&mut part, &mut is_data);
            continue;
        }
        escaped = *byte == b'\\' && !escaped;
        part.push(*byte);
    }
    end(&mut part, &mut is_data);
    (dirs, data_only)
}

/// Returns the ranges of `stored:shown:count[:stored:shown:count...]`; a colon in front does not count.
fn ranges(value: &[u8], option: &str) -> Result<Vec<IdRange>> {
    let value = value.strip_prefix(b":").unwrap_or(value);
    let numbers: Vec<_> = value
        .split(|byte| *byte == b':')
        .map(|text| number(text, option))
        .collect::<Result<_>>()?;
    let ranges = numbers.as_chunks::<3>();
    if !ranges.1.is_empty() {
        return Err(Error::StackOption {
            option: option.to_owned(),
            reason: "expected groups of three numbers: on the disk, shown, how many".to_owned(),
        });
    }
    let range = |[stored, shown, count]: &[u32; 3]| IdRange {
        stored: *stored,
        shown: *shown,
        count: *count,
    };
    Ok(ranges.0.iter().map(range).collect())
}

fn number(text: &[u8], option: &str) -> Result<u32> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::StackOption {
        option: option.to_owned(),
        reason: format!("{:?} is no number", String::from_utf8_lossy(text)),
    })
}

/// Takes away the backslashes that stand before something.
fn unescape(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut escaped = false;
    for byte in value {
        if *byte == b'\\' && !escaped {
            escaped = true;
            continue;
        }
        escaped = false;
        plain.push(*byte);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StackOptions> {
        StackOptions::parse(&[text.into()])
    }

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn directories_are_split_and_unescaped() {
        let found = parse(r"lowerdir=/a:/b\:c:/d\,e,upperdir=/u\\x,workdir=/w").unwrap();
        assert_eq!(found.lower, paths(&["/a", "/b:c", "/d,e"]));
        assert_eq!(found.upper, Some(PathBuf::from(r"/u\x")));
        let found = parse("lowerdir=/a:/b::/data1::/data2").unwrap();
        assert_eq!(
            (found.lower, found.data_only),
            (paths(&["/a", "/b"]), paths(&["/data1", "/data2"]))
        );
    }

    #[test]
    fn options_of_other_drivers_are_known() {
        let found = parse("lowerdir=/a,fsync=0,redirect_dir=on,nodev,static_nlink").unwrap();
        assert!(found.sync == Some(Sync::Never) && found.static_links);
        assert_eq!(found.mount, ["nodev"]);
        let found = parse("lowerdir=/a,metacopy=on,redirect_dir=off,xino=auto,threaded=1").unwrap();
        assert!(found.metacopy && found.redirects == Redirects::Followed);
        let ignored: Vec<_> = found.ignored.iter().map(|ignored| ignored.option.as_str()).collect();
        assert_eq!(ignored, ["xino=auto", "threaded=1"]);
    }

    #[test]
    fn every_option_has_its_opposite_and_the_later_one_wins() {
        let of = |text: &str| parse(&format!("lowerdir=/a,{text}")).unwrap();
        for (first, second) in [
            ("redirect_dir=nofollow", "redirect_dir=on"),
            ("redirect_dir=off", "redirect_dir=on"),
            ("metacopy=on", "metacopy=off"),
            ("index=off", "index=on"),
            ("fsync=0", "fsync=1"),
            ("volatile", "fsync=1"),
            ("noxattrs=1", "noxattrs=0"),
            ("noxattrs", "noxattrs=0"),
            ("xattr_permissions=2", "xattr_permissions=0"),
        ] {
            assert_ne!(of(first), of(second), "{first}");
            assert_eq!(of(&format!("{first},{second}")), of(second), "{first}");
        }
        assert_eq!(of("redirect_dir=nofollow").redirects, Redirects::Refused);
        assert_eq!(of("redirect_dir=follow").redirects, Redirects::Followed);
        assert_eq!(of("volatile,fsync=0").sync, Some(Sync::Volatile));
        assert_eq!(of("index=off").links, Links::Broken);
    }

    #[test]
    fn what_changes_nothing_is_accepted_with_a_reason() {
        for option in [
            "xino=on",
            "xino=off",
            "xino=auto",
            "nfs_export=on",
            "nfs_export=off",
            "writeback=0",
            "writeback",
            "fast_ino=1",
            "nfs_filehandles=2",
            "splice_read",
            "kernel_cache",
            "max_write=131072",
            "workdir=/w",
            "threaded=0",
        ] {
            let found = parse(&format!("lowerdir=/a,{option}")).unwrap();
            assert_eq!(found.ignored.len(), 1, "{option}");
            assert_eq!(found.ignored[0].option, option);
        }
    }

    #[test]
    fn directories_are_not_verified() {
        for when in ["open", "always"] {
            let error = parse(&format!("lowerdir=/a,verify={when}")).unwrap_err().to_string();
            assert!(error.contains("have no sums"), "{error}");
        }
        assert_eq!(parse("lowerdir=/a,verify=off").unwrap().mount, ["verify=off"]);
    }

    #[test]
    fn mappings_are_read_as_podman_writes_them() {
        let found = parse("lowerdir=/a,uidmapping=:0:100000:65536,gidmapping=0:1:2:3:4:5").unwrap();
        let range = |stored, shown, count| IdRange { stored, shown, count };
        assert_eq!(found.ids.users.ranges, [range(0, 100_000, 65_536)]);
        assert_eq!(found.ids.groups.ranges, [range(0, 1, 2), range(3, 4, 5)]);
        let found = parse("lowerdir=/a,squash_to_uid=7,squash_to_root").unwrap();
        assert_eq!((found.ids.users.squash, found.ids.groups.squash), (Some(7), Some(0)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("", "lowerdir"),
            ("lowerdir=/a,upperdir=/u", "workdir="),
            ("lowerdir=/a,fsync=2", "expected 0 or 1"),
            ("lowerdir=/a,uidmapping=0:1", "groups of three"),
            ("lowerdir=/a,squash_to_uid=x", "is no number"),
            ("lowerdir=/a,xattr_permissions=3", "expected 0, 1 or 2"),
            ("lowerdir=/a,redirect_dir=maybe", "nofollow"),
            ("lowerdir=/a,redirect_dir", "needs a value"),
            ("lowerdir=/a,index=2", "expected on or off"),
            ("lowerdir=/a,metacopy=1", "expected on or off"),
            ("lowerdir=/a,metacopy=on,redirect_dir=nofollow", "metacopy=on"),
            ("lowerdir=/a,xino=maybe", "expected one of on, off, auto"),
            ("lowerdir=/a,nfs_export=yes", "expected one of on, off"),
            ("lowerdir=/a,kernel_cache=1", "has no value"),
            ("lowerdir=/a,max_write=x", "is no number"),
            ("lowerdir=/a,noxattrs=2", "expected 0 or 1"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn quotes_keep_commas() {
        let options = split(br#"a,context="s0:c1,c2",b\,c"#);
        assert_eq!(options, [&b"a"[..], br#"context="s0:c1,c2""#, br"b\,c"]);
    }
}
