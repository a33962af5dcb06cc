//! `strata find`, with the tests of find(1) that a tree of an image can answer.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::listing::{long, shown};
use crate::service::{Kind, TreeFile, TreePath, Walk, glob};

/// Find files of an image or a container
///
/// What follows the place are tests as find(1) has them; a file that meets all of them is printed.
#[derive(Debug, Args)]
#[command(
    after_help = "Tests: -name GLOB, -iname GLOB, -path GLOB, -type [fdlcbps], -size [+-]N[ckMG], -perm \
                  [-/]MODE, -uid N, -gid N, -empty; '!' or -not before one turns it round\n\
                  Limits: -maxdepth N, -mindepth N\nOutput: -print0 (a zero behind each name), -ls \
                  (as 'strata ls -l')\n\nExamples:\n  strata find debian:12 -name '*.conf'\n  strata \
                  find debian:12:/usr -type f -perm /6000 -ls"
)]
pub(crate) struct Arguments {
    /// Where to begin; without a path the root
    #[arg(value_name = "IMAGE|CONTAINER[:/PATH]")]
    place: OsString,

    /// What a file must be
    #[arg(value_name = "TEST", trailing_var_arg = true, allow_hyphen_values = true)]
    tests: Vec<OsString>,
}

/// What a file can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Name {
        glob: Vec<u8>,
        ignore_case: bool,
    },
    Path(Vec<u8>),
    Type(Vec<Kind>),
    /// In units of so many bytes, rounded up.
    Size {
        than: Than,
        count: u64,
        unit: u64,
    },
    Permissions {
        bits: u32,
        how: Bits,
    },
    Uid(u32),
    Gid(u32),
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Than {
    More,
    Less,
    Exactly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    Exactly,
    All,
    Any,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Print {
    #[default]
    Line,
    Zero,
    Long,
}

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Query {
    /// Each with whether it is turned round.
    tests: Vec<(bool, Test)>,
    least: usize,
    most: Option<usize>,
    print: Print,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let query = Query::parse(&arguments.tests).map_err(Failure::text)?;
    let at = TreePath::parse(&arguments.place);
    let mut out = BufWriter::new(io::stdout().lock());
    context.strata()?.walk_tree::<Failure>(&at, &mut |depth, file| {
        if depth >= query.least && query.fits(file) {
            match query.print {
                Print::Line => out.write_all(&[&shown(&file.path)[..], b"\n"].concat())?,
                Print::Zero => out.write_all(&[&file.path[..], b"\0"].concat())?,
                Print::Long => out.write_all(&long([(file, shown(&file.path))].into_iter()))?,
            }
        }
        let is_deepest = query.most.is_some_and(|most| depth >= most);
        Ok(if is_deepest { Walk::Past } else { Walk::Into })
    })?;
    Ok(out.flush()?)
}

impl Query {
    fn parse(words: &[OsString]) -> Result<Self, String> {
        let mut query = Self::default();
        let mut words = words.iter();
        let mut is_turned = false;
        while let Some(word) = words.next() {
            let name = word.to_string_lossy();
            let mut value = || match words.next() {
                Some(value) => Ok(value.clone().into_vec()),
                None => Err(format!("{name} needs a value")),
            };
            let test = match &*name {
                "!" | "-not" => {
                    is_turned = !is_turned;
                    continue;
                }
                "-name" => Test::Name { glob: value()?, ignore_case: false },
                "-iname" => Test::Name { glob: value()?, ignore_case: true },
                "-path" | "-wholename" => Test::Path(value()?),
                "-type" => Test::Type(kinds(&value()?)?),
                "-size" => size(&value()?)?,
                "-perm" => permissions(&value()?)?,
                "-uid" => Test::Uid(number(&value()?)?),
                "-gid" => Test::Gid(number(&value()?)?),
                "-empty" => Test::Empty,
                "-maxdepth" => {
                    query.most = Some(number(&value()?)?);
                    continue;
                }
                "-mindepth" => {
                    query.least = number(&value()?)?;
                    continue;
                }
                "-print" => {
                    query.print = Print::Line;
                    continue;
                }
                "-print0" => {
                    query.print = Print::Zero;
                    continue;
                }
                "-ls" => {
                    query.print = Print::Long;
                    continue;
                }
                "-a" | "-and" => continue,
                other => {
                    return Err(format!("{other:?} is not a test; see 'strata find --help'"));
                }
            };
            query.tests.push((is_turned, test));
            is_turned = false;
        }
        match is_turned {
            true => Err("a test must follow '!'".to_owned()),
            false => Ok(query),
        }
    }

    fn fits(&self, file: &TreeFile) -> bool {
        self.tests.iter().all(|(is_turned, test)| test.fits(file) != *is_turned)
    }
}

impl Test {
    fn fits(&self, file: &TreeFile) -> bool {
        match self {
            Self::Name { glob: pattern, ignore_case: false } => glob(pattern, file.name()),
            Self::Name { glob: pattern, ignore_case: true } => {
                glob(&pattern.to_ascii_lowercase(), &file.name().to_ascii_lowercase())
            }
            Self::Path(pattern) => glob(pattern, &file.path),
            Self::Type(kinds) => kinds.contains(&file.kind),
            Self::Size { than, count, unit } => {
                let size = file.size.div_ceil(*unit);
                match than {
                    Than::More => size > *count,
                    Than::Less => size < *count,
                    Than::Exactly => size == *count,
                }
            }
            Self::Permissions { bits, how: Bits::Exactly } => file.permissions == *bits,
            Self::Permissions { bits, how: Bits::All } => file.permissions & bits == *bits,
            Self::Permissions { bits, how: Bits::Any } => {
                *bits == 0 || file.permissions & bits != 0
            }
            Self::Uid(uid) => file.uid == *uid,
            Self::Gid(gid) => file.gid == *gid,
            Self::Empty => match file.kind {
                Kind::Regular => file.size == 0,
                Kind::Directory => file.is_empty,
                _ => false,
            },
        }
    }
}

fn kinds(value: &[u8]) -> Result<Vec<Kind>, String> {
    let kind = |letter: &u8| match letter {
        b'f' => Ok(Kind::Regular),
        b'd' => Ok(Kind::Directory),
        b'l' => Ok(Kind::Symlink),
        b'c' => Ok(Kind::Character),
        b'b' => Ok(Kind::Block),
        b'p' => Ok(Kind::Fifo),
        b's' => Ok(Kind::Socket),
        other => Err(format!("{:?} is no type; expected one of f d l c b p s", char::from(*other))),
    };
    value.iter().filter(|letter| **letter != b',').map(kind).collect()
}

fn size(value: &[u8]) -> Result<Test, String> {
    let (than, rest) = match value.split_first() {
        Some((b'+', rest)) => (Than::More, rest),
        Some((b'-', rest)) => (Than::Less, rest),
        _ => (Than::Exactly, value),
    };
    let (digits, unit) = match rest.split_last() {
        Some((b'c', digits)) => (digits, 1),
        Some((b'k', digits)) => (digits, 1 << 10),
        Some((b'M', digits)) => (digits, 1 << 20),
        Some((b'G', digits)) => (digits, 1 << 30),
        Some((b'b', digits)) => (digits, 512),
        _ => (rest, 512),
    };
    Ok(Test::Size { than, count: number(digits)?, unit })
}

fn permissions(value: &[u8]) -> Result<Test, String> {
    let (how, digits) = match value.split_first() {
        Some((b'-', rest)) => (Bits::All, rest),
        Some((b'/', rest)) => (Bits::Any, rest),
        _ => (Bits::Exactly, value),
    };
    let text = String::from_utf8_lossy(digits);
    match u32::from_str_radix(&text, 8) {
        Ok(bits) if bits <= 0o7777 => Ok(Test::Permissions { bits, how }),
        _ => Err(format!("{text:?} is no mode; expected octal digits such as 4755")),
    }
}

fn number<N: std::str::FromStr>(value: &[u8]) -> Result<N, String> {
    let text = String::from_utf8_lossy(value);
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Query, String> {
        Query::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn file(path: &str, kind: Kind, permissions: u32, size: u64) -> TreeFile {
        TreeFile {
            path: path.as_bytes().to_vec(),
            kind,
            permissions,
            links: 1,
            uid: 0,
            gid: 8,
            size,
            device: (0, 0),
            modified: crate::service::Time::default(),
            target: None,
            is_empty: false,
        }
    }

    fn fits(words: &[&str], file: &TreeFile) -> bool {
        parse(words).unwrap().fits(file)
    }

    #[test]
    fn tests_mean_what_find_means() {
        let su = file("/usr/bin/su", Kind::Regular, 0o4755, 1025);
        for words in [
            &["-name", "s?"][..],
            &["-iname", "SU"],
            &["-path", "/usr/*su"],
            &["-type", "d,f"],
            &["-size", "2k"],
            &["-size", "+1k"],
            &["-size", "-3k"],
            &["-size", "1025c"],
            &["-perm", "-4000"],
            &["-perm", "/6000"],
            &["-perm", "4755"],
            &["-uid", "0", "-gid", "8"],
            &["!", "-empty", "-not", "-name", "sudo"],
            &["-maxdepth", "1"],
        ] {
            assert!(fits(words, &su), "{words:?}");
        }
        for words in [
            &["-name", "S?"][..],
            &["-name", "bin"],
            &["-type", "l"],
            &["-size", "1k"],
            &["-perm", "-6000"],
            &["-perm", "0755"],
            &["-name", "su", "-uid", "1"],
            &["-empty"],
        ] {
            assert!(!fits(words, &su), "{words:?}");
        }
    }

    #[test]
    fn what_is_no_test_is_said() {
        for (words, said) in [
            (&["-nane", "x"][..], "-nane"),
            (&["-name"], "-name needs a value"),
            (&["-type", "x"], "'x' is no type"),
            (&["-size", "big"], "\"bi"),
            (&["-perm", "u+s"], "octal"),
            (&["!"], "must follow"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(said), "{words:?}: {error}");
        }
    }
}
