//! From an error to a sentence and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::cli::format::size;
use crate::service::{Error, RoomLeft};

/// Why a command ends without having done everything that it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One thing went wrong.
    One(Error),
    /// Several did; the rest was done.
    Several(Vec<Error>),
    /// What was typed makes no sense.
    Text(String),
    /// An option is not known or has a wrong value; all that is to be said.
    Flag(String),
    /// Other words than options are wrong; all that is to be said.
    Words(String),
    /// A template for one object cannot be read; all that is to be said.
    Template(String),
    /// The store could not be checked.
    Check(Error),
    /// Another process has told why, and this is its exit code.
    Told(u8),
    /// Nobody reads what this prints any more.
    Closed,
    /// It could not be printed.
    Output(io::Error),
}

impl Failure {
    /// Returns a failure that says this.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Says why, and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::One(error) | Self::Check(error) => say(&told(error)),
            Self::Several(errors) => errors.iter().for_each(|error| say(&told(error))),
            Self::Text(text) => say(text),
            Self::Flag(text) | Self::Words(text) | Self::Template(text) => say_bare(text),
            Self::Output(error) => say(&format!("standard output: {error}")),
            Self::Told(_) | Self::Closed => {}
        }
        ExitCode::from(self.exit_code())
    }

    /// Returns the exit code, docker's for the same.
    fn exit_code(&self) -> u8 {
        match self {
            Self::One(_) | Self::Several(_) | Self::Text(_) => 1,
            Self::Words(_) | Self::Output(_) => 1,
            Self::Flag(_) => 125,
            Self::Template(_) => 64,
            Self::Check(_) => 8,
            Self::Told(code) => *code,
            Self::Closed => 0,
        }
    }

    /// Collects what went wrong with some of several things.
    pub(crate) fn collect(errors: Vec<Error>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self::Several(errors)) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::One(error)
    }
}

impl From<crate::image::Error> for Failure {
    fn from(error: crate::image::Error) -> Self {
        Self::One(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Output(error),
        }
    }
}

/// Writes a line to standard error; if that is closed there is nobody to tell.
fn say(text: &str) {
    say_bare(&format!("Error: {}", without_numbers(text)));
}

/// Returns a text in which what the system has said is as other programs show it: in small letters and
/// without the number that Rust adds.
fn without_numbers(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, (_, after))) =
        rest.split_once(" (os error ").and_then(|(b, a)| Some((b, a.split_once(')')?)))
    {
        let start = before.rfind(": ").map_or(0, |colon| colon + 2);
        shown.push_str(&before[..start]);
        shown.push_str(&before[start..].to_lowercase());
        rest = after;
    }
    shown + rest
}

fn say_bare(text: &str) {
    let written = writeln!(io::stderr(), "{}", without_controls(text));
    drop(written);
}

/// Returns a text without what would move the cursor of a terminal, or colour what follows: names of
/// files, and what a registry says, are whatever somebody wants them to be.
pub(crate) fn without_controls(text: &str) -> String {
    let is_plain = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if is_plain(&c) { c } else { '\u{fffd}' }).collect()
}

/// Returns what is said of an error: with its causes, and what may be done about it.
pub(crate) fn told(error: &Error) -> String {
    match error {
        Error::NoRoom { room, source } => format!("{}\n{}", source.told(), about_room(room)),
        other => other.told(),
    }
}

/// Returns what is said of the room where the store is.
fn about_room(room: &RoomLeft) -> String {
    let mut text = match room.free_files {
        _ if room.is_quota => "The quota of this user is used up".to_owned(),
        Some(0) => "No more files can be made where the store is".to_owned(),
        _ => format!("{} are free where the store is", size(room.free_bytes)),
    };
    if let Some(needed) = room.needed_bytes {
        text.push_str(&format!(", {} or more are to be written", size(needed)));
    }
    let ways = [("image prune -a", room.images_bytes), ("container prune", room.containers_bytes)];
    let ways = ways.iter().filter(|(_, bytes)| *bytes > 0);
    let ways = ways.map(|(way, bytes)| format!("'strata {way}' would give {} back", size(*bytes)));
    let ways = ways.collect::<Vec<_>>().join(", ");
    match ways.is_empty() {
        true => text + ". Nothing in the store could be pruned.",
        false => format!("{text}. {ways}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_moves_no_cursor() {
        let said = without_controls("a\u{1b}[2J\rb\n\tc\u{9b}1m");
        assert_eq!(said, "a\u{fffd}[2J\u{fffd}b\n\tc\u{fffd}1m");
    }

    #[test]
    fn a_disk_without_room_is_told_with_what_would_give_some() {
        let room = RoomLeft { free_bytes: 4096, free_files: Some(9), ..RoomLeft::default() };
        let nothing = "4.1kB are free where the store is. Nothing in the store could be pruned.";
        assert_eq!(about_room(&room), nothing);
        let needed = RoomLeft { needed_bytes: Some(5_000_000), images_bytes: 1_200_000, ..room };
        assert_eq!(
            about_room(&needed),
            "4.1kB are free where the store is, 5MB or more are to be written. 'strata image prune \
             -a' would give 1.2MB back."
        );
        let files = RoomLeft { free_files: Some(0), containers_bytes: 999, ..room };
        assert_eq!(
            about_room(&files),
            "No more files can be made where the store is. 'strata container prune' would give 999B \
             back."
        );
        let quota = RoomLeft { is_quota: true, ..room };
        assert!(about_room(&quota).starts_with("The quota of this user is used up."));
    }

    #[test]
    fn what_the_system_says_is_in_small_letters_and_has_no_number() {
        for (text, expected) in [
            ("open A: No such file or directory (os error 2)", "open A: no such file or directory"),
            ("Is a directory (os error 21): X: Quota (os error 5)", "is a directory: X: quota"),
            ("No such image: x (os error", "No such image: x (os error"),
        ] {
            assert_eq!(without_numbers(text), expected);
        }
    }
}
