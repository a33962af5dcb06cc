//! Why something was not measured.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something was not measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be measured here, or not with this driver.
    #[error("{0}")]
    NotHere(String),
    /// No driver has this name.
    #[error("no driver is called {name:?}; there are {known}, and those of --peer")]
    NoDriver {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// No workload has this name.
    #[error("no workload is called {name:?}; see 'strata bench --list'")]
    NoWorkload {
        /// What was asked for.
        name: String,
    },
    /// A driver takes no options.
    #[error("{0} takes no options")]
    NoOptions(String),
    /// Another program cannot have this name.
    #[error(
        "{0:?} cannot be the name of a peer: it is taken, or has another letter than a-z, 0-9 . _ -"
    )]
    PeerName(String),
    /// Two drivers are the same.
    #[error("{0} is there twice")]
    Twice(String),
    /// A path that options of mounts cannot hold.
    #[error("{} has a colon, a comma or a backslash, which options of mounts cannot hold: choose another --dir", .0.display())]
    Place(PathBuf),
    /// The disk is too small.
    #[error("{} has {available} bytes left and this takes about {needed}; say --dir or a smaller --size", dir.display())]
    NoRoom {
        /// Where.
        dir: PathBuf,
        /// What is needed.
        needed: u64,
        /// What is there.
        available: u64,
    },
    /// A driver did not do what it should.
    #[error("{what}: expected {expected}, found {found}")]
    Wrong {
        /// What was looked at.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It took too long.
    #[error("it took longer than {} s", .0.as_secs())]
    TooLong(Duration),
    /// A command did not succeed.
    #[error("{command} ended with {code}{said}")]
    Command {
        /// Its name and first words.
        command: String,
        /// Its exit code, or the signal.
        code: String,
        /// What it said, with a colon before it; empty if nothing.
        said: String,
    },
    /// A command ended and nothing was mounted.
    #[error("{0} ended well, but nothing is mounted")]
    NothingMounted(String),
    /// Reports of different machines, or of another form.
    #[error("{0}")]
    Reports(String),
    /// The layers could not be made.
    #[error("preparing the layers")]
    Prepare(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file.
    #[error("{action} {}", path.display())]
    Io {
        /// What was done with it.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A system call.
    #[error(transparent)]
    Sys(#[from] crate::sys::Error),
}

impl Error {
    /// Returns the error and its causes as one sentence.
    pub(crate) fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}

/// Gives an I/O error the action and the file that it was met with.
pub(crate) fn io_error(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}
