//! The options of an overlay driver, and what they mean.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::overlay::{IdRange, Ids, Sync};
use crate::service::error::{Error, Result};

/// Options of fuse-overlayfs and the kernel that ask for what is so anyway, or for a way of working that
/// there is no second one of.
const IGNORED: [&str; 10] = [
    "xino",
    "nfs_filehandles",
    "fast_ino",
    "threaded",
    "writeback",
    "splice_read",
    "splice_write",
    "splice_move",
    "kernel_cache",
    "max_write",
];

/// What a list of options says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackOptions {
    pub(super) lower: Vec<PathBuf>,
    pub(super) data_only: Vec<PathBuf>,
    pub(super) upper: Option<PathBuf>,
    pub(super) work: Option<PathBuf>,
    pub(super) user_marks: bool,
    pub(super) override_stat: bool,
    pub(super) static_links: bool,
    pub(super) no_redirect: bool,
    pub(super) metacopy: bool,
    pub(super) sync: Option<Sync>,
    pub(super) ids: Ids,
    /// Options of the mount itself.
    pub(super) mount: Vec<String>,
    /// Options that are accepted and mean nothing here.
    pub ignored: Vec<String>,
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
        match (&options.upper, &options.work) {
            (Some(_), None) => Err(Error::StackOption {
                option: "upperdir".to_owned(),
                reason: "it needs a workdir= on the same file system".to_owned(),
            }),
            _ => Ok(options),
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
            (b"xattr_permissions", Some(b"2")) => self.override_stat = true,
            (b"xattr_permissions", _) => {
                return refuse("expected 2: owners and modes in user.containers.override_stat");
            }
            (b"uidmapping", Some(value)) => self.ids.users.ranges = ranges(value, &text)?,
            (b"gidmapping", Some(value)) => self.ids.groups.ranges = ranges(value, &text)?,
            (b"squash_to_root", None) => {
                let squash = |id: &mut Option<u32>| *id = id.or(Some(0));
                squash(&mut self.ids.users.squash);
                squash(&mut self.ids.groups.squash);
            }
            (b"squash_to_uid", Some(value)) => self.ids.users.squash = Some(number(value, &text)?),
            (b"squash_to_gid", Some(value)) => self.ids.groups.squash = Some(number(value, &text)?),
            (b"redirect_dir", Some(b"on")) => self.no_redirect = false,
            (b"redirect_dir", Some(b"off" | b"follow")) => self.no_redirect = true,
            (b"metacopy", Some(b"on")) => self.metacopy = true,
            (b"metacopy", Some(b"off")) => self.metacopy = false,
            (b"index", Some(b"on")) => {}
            _ if IGNORED.iter().any(|known| known.as_bytes() == name) => self.ignored.push(text),
            _ => self.mount.push(text),
        }
        Ok(())
    }
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
        reason: format!("{:?} is no id", String::from_utf8_lossy(text)),
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
        assert!(found.metacopy && found.no_redirect);
        assert_eq!(found.ignored, ["xino=auto", "threaded=1"]);
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
            ("lowerdir=/a,squash_to_uid=x", "is no id"),
            ("lowerdir=/a,xattr_permissions=1", "expected 2"),
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
