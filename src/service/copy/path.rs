//! What the two words of a copy mean: which of them is in a tree, and what the ends of paths say.
//!
//! Pure; the rules are those of docker's `cp`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::layer::{Kind, components};
use crate::service::error::{Error, Result};

/// What a word may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// `-`: standard input or output.
    Stream,
    /// A path of the host.
    Host(Vec<u8>),
    /// A tree and a path in it, in one or two readings, the likelier first.
    Tree(Vec<(String, Vec<u8>)>),
}

impl Word {
    /// Reads a word. A path of the host that has a colon is written with a slash or a dot first.
    pub(crate) fn parse(word: &OsStr) -> Self {
        let bytes = word.as_bytes();
        if bytes == b"-" {
            return Self::Stream;
        }
        let colon = bytes.iter().position(|byte| *byte == b':');
        let Some(colon) = colon.filter(|_| !bytes.starts_with(b"/") && !bytes.starts_with(b"."))
        else {
            return Self::Host(bytes.to_vec());
        };
        let cut = |at: usize| {
            let path = bytes.get(at + 1..).unwrap_or_default().to_vec();
            (String::from_utf8_lossy(&bytes[..at]).into_owned(), path)
        };
        // The name of an image has colons itself, so its path begins with a slash.
        let slash = bytes.windows(2).position(|pair| pair == b":/");
        match slash {
            Some(slash) if slash != colon => Self::Tree(vec![cut(slash), cut(colon)]),
            _ => Self::Tree(vec![cut(colon)]),
        }
    }
}

/// What a path ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Name,
    /// `/`: it is a directory.
    Slash,
    /// `/.`: what is in the directory.
    Dot,
}

/// A path from the root, without `.`, `..` and needless slashes, as docker cleans it: by its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CleanPath {
    names: Vec<Vec<u8>>,
    ending: Ending,
}

impl CleanPath {
    /// Cleans a path; one that does not begin with a slash begins at `base`.
    pub(crate) fn new(path: &[u8], base: &[u8]) -> Self {
        let whole = match path {
            [b'/', ..] => path.to_vec(),
            _ => [base, b"/", path].concat(),
        };
        let names = components(&whole).into_iter().map(<[u8]>::to_vec).collect();
        let ending = match path {
            b"." | [.., b'/', b'.'] => Ending::Dot,
            [.., b'/'] => Ending::Slash,
            _ => Ending::Name,
        };
        Self { names, ending }
    }

    /// Returns the last name; none of the root.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        self.names.last().map(Vec::as_slice)
    }

    /// Tells whether it says of itself that it is a directory.
    pub(crate) fn says_directory(&self) -> bool {
        self.ending != Ending::Name || self.names.is_empty()
    }

    /// Tells whether it stands for what is in a directory and not for the directory.
    pub(crate) fn says_contents(&self) -> bool {
        self.ending == Ending::Dot || self.names.is_empty()
    }

    /// Returns the path without what its end says.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![b'/'];
        bytes.extend(self.names.join(&b'/'));
        bytes
    }

    /// Returns the path without what its end says, as one of the host.
    pub(crate) fn to_host(&self) -> PathBuf {
        OsStr::from_bytes(&self.bytes()).into()
    }

    /// Returns the directory that it is in.
    pub(crate) fn parent(&self) -> PathBuf {
        let above = self.names.len().saturating_sub(1);
        let parent = Self { names: self.names[..above].to_vec(), ending: Ending::Name };
        parent.to_host()
    }
}

impl std::fmt::Display for CleanPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = match self.ending {
            Ending::Slash if !self.names.is_empty() => "/",
            Ending::Dot if !self.names.is_empty() => "/.",
            Ending::Dot => ".",
            Ending::Slash | Ending::Name => "",
        };
        write!(f, "{}{end}", String::from_utf8_lossy(&self.bytes()))
    }
}

/// What is copied.
#[derive(Clone, Debug)]
pub(crate) struct From<'a> {
    pub(crate) path: &'a CleanPath,
    pub(crate) is_directory: bool,
}

/// Where the copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Into the directory that the destination is, under this name; without one, what is in the
    /// source goes there.
    Into(Option<Vec<u8>>),
    /// To the destination itself.
    Itself,
}

/// Decides where a copy goes. `there` is what the destination is, and `shown` what it is called.
pub(crate) fn goal(
    from: &From<'_>,
    to: &CleanPath,
    there: Option<Kind>,
    shown: &str,
) -> Result<Goal> {
    match (there, from.is_directory) {
        (Some(Kind::Directory), _) if from.path.says_contents() => Ok(Goal::Into(None)),
        (Some(Kind::Directory), _) => Ok(Goal::Into(from.path.name().map(<[u8]>::to_vec))),
        (Some(Kind::Regular), true) => Err(Error::CopyDirectory(shown.to_owned())),
        (Some(Kind::Regular), false) if to.says_directory() => {
            Err(Error::NotADirectory(shown.to_owned()))
        }
        (Some(Kind::Regular), false) | (None, true) => Ok(Goal::Itself),
        (Some(_), _) => Err(Error::OutputKind(shown.to_owned())),
        (None, false) if to.says_directory() => Err(Error::NoSuchDirectory(shown.to_owned())),
        (None, false) => Ok(Goal::Itself),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(readings: &[(&str, &str)]) -> Word {
        let owned = readings.iter().map(|(tree, path)| ((*tree).into(), (*path).into()));
        Word::Tree(owned.collect())
    }

    #[test]
    fn a_word_is_a_path_a_tree_or_a_stream() {
        let host = |path: &str| Word::Host(path.into());
        for (word, found) in [
            ("-", Word::Stream),
            ("file", host("file")),
            ("/a:b", host("/a:b")),
            ("./a:b", host("./a:b")),
            ("../a:b", host("../a:b")),
            ("box:etc/x", tree(&[("box", "etc/x")])),
            ("box:/etc/x", tree(&[("box", "/etc/x")])),
            ("box:", tree(&[("box", "")])),
            ("debian:12:/etc", tree(&[("debian:12", "/etc"), ("debian", "12:/etc")])),
            ("box:a:/b", tree(&[("box:a", "/b"), ("box", "a:/b")])),
            ("box:/a:/b", tree(&[("box", "/a:/b")])),
            ("h:5/a:1:/x", tree(&[("h:5/a:1", "/x"), ("h", "5/a:1:/x")])),
        ] {
            assert_eq!(Word::parse(word.as_ref()), found, "{word}");
        }
    }

    #[test]
    fn paths_are_cleaned_and_keep_what_their_end_says() {
        for (path, shown, name, directory, contents) in [
            ("x", "/base/x", Some("x"), false, false),
            ("x/", "/base/x/", Some("x"), true, false),
            ("x/.", "/base/x/.", Some("x"), true, true),
            (".", "/base/.", Some("base"), true, true),
            ("./", "/base/", Some("base"), true, false),
            ("..", "/", None, true, true),
            ("/", "/", None, true, true),
            ("/a/../b//c", "/b/c", Some("c"), false, false),
            ("a.", "/base/a.", Some("a."), false, false),
        ] {
            let found = CleanPath::new(path.as_bytes(), b"/base");
            assert_eq!(found.to_string(), shown, "{path}");
            assert_eq!(found.name(), name.map(str::as_bytes), "{path}");
            let says = (found.says_directory(), found.says_contents());
            assert_eq!(says, (directory, contents), "{path}");
        }
    }

    #[test]
    fn where_a_copy_goes_is_decided_as_docker_decides_it() {
        let directory = Some(Kind::Directory);
        let file = Some(Kind::Regular);
        let into = |name: &str| Ok(Goal::Into(Some(name.as_bytes().to_vec())));
        for (from, is_directory, to, there, expected) in [
            ("/f", false, "/d", None, Ok(Goal::Itself)),
            ("/f", false, "/d/", None, Err("no such directory: shown")),
            ("/f", false, "/d", file, Ok(Goal::Itself)),
            ("/f", false, "/d/", file, Err("shown is not a directory")),
            ("/f", false, "/d", directory, into("f")),
            ("/s", true, "/d", None, Ok(Goal::Itself)),
            ("/s/.", true, "/d", None, Ok(Goal::Itself)),
            ("/s", true, "/d/", None, Ok(Goal::Itself)),
            ("/s", true, "/d", file, Err("cannot copy directory: shown is not a directory")),
            ("/s", true, "/d", directory, into("s")),
            ("/s/", true, "/d", directory, into("s")),
            ("/s/.", true, "/d", directory, Ok(Goal::Into(None))),
            ("/", true, "/d", directory, Ok(Goal::Into(None))),
            (
                "/f",
                false,
                "/d",
                Some(Kind::Fifo),
                Err("destination \"shown\" must be a directory or a regular file"),
            ),
        ] {
            let path = CleanPath::new(from.as_bytes(), b"/");
            let to = CleanPath::new(to.as_bytes(), b"/");
            let found = goal(&From { path: &path, is_directory }, &to, there, "shown");
            let found = found.map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{from} to {to} ({there:?})");
        }
    }
}
