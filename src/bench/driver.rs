//! What is measured: a name, how it is mounted, and whether it can be.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench::{DriverFacts, Error, Result};
use crate::sys;

/// A way to show layers as one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// As it was asked for.
    pub name: String,
    pub(crate) kind: DriverKind,
    /// Options of the mount that were asked for.
    pub(crate) options: Vec<String>,
}

/// How a driver is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DriverKind {
    /// No driver: a plain directory with what all layers show.
    Native,
    /// The kernel's overlayfs.
    Overlay,
    /// An image in the store, by `strata mount`.
    Image,
    /// Plain directories, by `strata overlay`.
    Stack,
    /// Plain directories, by a program that is called as fuse-overlayfs is.
    Program(PathBuf),
}

/// Another program that is called as fuse-overlayfs is: `NAME=PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called.
    pub name: String,
    /// The program.
    pub path: PathBuf,
}

/// The drivers that need no path.
const NAMES: [&str; 6] =
    ["strata", "strata-dev", "strata-overlay", "overlay", "fuse-overlayfs", "native"];

impl Peer {
    /// Reads `NAME=PATH`.
    ///
    /// # Errors
    /// The sentence to say.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(Self { name: name.to_owned(), path: PathBuf::from(path) })
            }
            _ => Err(format!("{text:?} is not NAME=PATH")),
        }
    }

    fn check(&self) -> Result<()> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        match self.name.chars().all(allowed) && !NAMES.contains(&self.name.as_str()) {
            true => Ok(()),
            false => Err(Error::PeerName(self.name.clone())),
        }
    }
}

impl Driver {
    /// Returns the drivers that these words mean, `NAME[:OPTION]...`, and one for each peer that no
    /// word names.
    pub fn of(words: &[String], peers: &[Peer]) -> Result<Vec<Self>> {
        peers.iter().try_for_each(Peer::check)?;
        let mut drivers: Vec<Self> = Vec::new();
        for word in words {
            drivers.push(Self::of_word(word, peers)?);
        }
        for peer in peers {
            let is_of = |driver: &Self| driver.name.split(':').next() == Some(peer.name.as_str());
            if !drivers.iter().any(is_of) {
                drivers.push(Self::of_word(&peer.name, peers)?);
            }
        }
        for (at, driver) in drivers.iter().enumerate() {
            if drivers[..at].iter().any(|other| other.name == driver.name) {
                return Err(Error::Twice(driver.name.clone()));
            }
        }
        Ok(drivers)
    }

    fn of_word(word: &str, peers: &[Peer]) -> Result<Self> {
        let mut parts = word.split(':');
        let name = parts.next().unwrap_or_default();
        let mut options: Vec<String> = parts.map(str::to_owned).collect();
        let peer = peers.iter().find(|peer| peer.name == name);
        let kind = match (name, peer) {
            (_, Some(peer)) => DriverKind::Program(peer.path.clone()),
            ("native", _) if !options.is_empty() => return Err(Error::NoOptions(name.to_owned())),
            ("native", _) => DriverKind::Native,
            ("overlay", _) => DriverKind::Overlay,
            ("fuse-overlayfs", _) => DriverKind::Program(PathBuf::from(name)),
            ("strata", _) => DriverKind::Image,
            ("strata-dev", _) => {
                options.insert(0, "transport=dev-fuse".to_owned());
                DriverKind::Image
            }
            ("strata-overlay", _) => DriverKind::Stack,
            _ => {
                let known = NAMES.join(", ");
                return Err(Error::NoDriver { name: name.to_owned(), known });
            }
        };
        Ok(Self { name: word.to_owned(), kind, options })
    }

    /// Tells whether it is the plain directory.
    pub(crate) fn is_native(&self) -> bool {
        self.kind == DriverKind::Native
    }

    /// Tells whether a process serves its mounts.
    pub(crate) fn has_server(&self) -> bool {
        !matches!(self.kind, DriverKind::Native | DriverKind::Overlay)
    }

    /// Returns what it is, and why it cannot be measured if it cannot.
    pub(crate) fn facts(&self, strata: &Path) -> DriverFacts {
        let is_root = sys::effective_ids().0 == 0;
        let (command, version, not_run) = match &self.kind {
            DriverKind::Native => ("a plain directory".to_owned(), Ok(String::new()), None),
            DriverKind::Overlay => {
                let why = "only root can mount the kernel's overlayfs";
                let reason = (!is_root).then(|| why.to_owned());
                ("mount -t overlay".to_owned(), Ok(kernel()), reason)
            }
            DriverKind::Image => ("strata mount".to_owned(), version(strata), None),
            DriverKind::Stack => ("strata overlay".to_owned(), version(strata), None),
            DriverKind::Program(path) => (path.display().to_string(), version(path), None),
        };
        let (version, not_found) = match version {
            Ok(version) => (version, None),
            Err(reason) => (String::new(), Some(reason)),
        };
        let options = self.options.join(",");
        let not_run = not_run.or(not_found);
        DriverFacts { name: self.name.clone(), command, options, version, not_run }
    }
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

/// Returns what a program says when it is asked for its version: the line with the most to tell.
fn version(program: &Path) -> std::result::Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no program {}", program.display()),
        _ => format!("{} cannot be started: {error}", program.display()),
    })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let own = program.file_name().map(|name| name.to_string_lossy().into_owned());
    let named = |line: &&str| own.as_ref().is_some_and(|own| line.contains(own.as_str()));
    let line = said.lines().find(named).or_else(|| said.lines().next());
    Ok(line.unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str], peers: &[Peer]) -> Result<Vec<Driver>> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Driver::of(&words, peers)
    }

    #[test]
    fn a_word_is_a_driver_with_its_options() {
        let drivers =
            of(&["strata:data=cache:volatile", "strata-dev:noacl", "native"], &[]).unwrap();
        assert_eq!(drivers[0].kind, DriverKind::Image);
        assert_eq!(drivers[0].options, ["data=cache", "volatile"]);
        assert_eq!(drivers[1].options, ["transport=dev-fuse", "noacl"]);
        assert_eq!(drivers[2].kind, DriverKind::Native);
    }

    #[test]
    fn a_peer_is_measured_even_if_no_word_names_it() {
        let peer = Peer::parse("fo2=/opt/fuse-overlayfs").unwrap();
        let known = std::slice::from_ref(&peer);
        let names = |words: &[&str]| {
            let drivers = of(words, known).unwrap();
            drivers.into_iter().map(|driver| driver.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["overlay"]), ["overlay", "fo2"]);
        assert_eq!(names(&["fo2:fsync=0", "overlay"]), ["fo2:fsync=0", "overlay"]);
        assert_eq!(of(&[], known).unwrap()[0].kind, DriverKind::Program(peer.path));
    }

    #[test]
    fn what_is_no_driver_is_told() {
        let peer = |text: &str| [Peer::parse(text).unwrap()];
        for (words, peers, said) in [
            (&["ext4"][..], &[][..], "no driver is called \"ext4\""),
            (&["native:x"], &[], "native takes no options"),
            (&["strata", "strata"], &[], "strata is there twice"),
            (&[], &peer("strata=/x"), "\"strata\" cannot be the name of a peer"),
            (&[], &peer("a b=/x"), "\"a b\" cannot be the name of a peer"),
        ] {
            let error = of(words, peers).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
        assert!(Peer::parse("/usr/bin/x").is_err());
        let gone = Driver::of(&[], &peer("gone=/nowhere/gone")).unwrap();
        let facts = gone[0].facts(Path::new("/bin/true"));
        assert_eq!(facts.not_run.as_deref(), Some("there is no program /nowhere/gone"));
    }
}
