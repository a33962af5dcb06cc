//! A deadline for all that a test does in a mount.

use std::path::Path;
use std::time::Duration;

use crate::common::deadline::{Connection, Deadline};
use crate::common::setting;

/// How many seconds a test may take on a machine that is slow and busy, if nobody says otherwise.
const SECONDS: u64 = 600;

/// Ends the connection of a mount when its test does not come to an end: who waits in the kernel for an
/// answer gets an error, and the test fails.
#[derive(Debug)]
pub(crate) struct Watch(#[allow(dead_code, reason = "it counts until it is dropped")] Deadline);

impl Watch {
    /// Watches over the file system that is mounted at a path. Whoever makes it has to be root.
    pub(crate) fn over(mounted: &Path) -> Self {
        let connection = Connection::of(mounted).expect("it is mounted");
        let what = format!("the test in {}", mounted.display());
        let within = Duration::from_secs(setting("STRATA_SURVIVE_SECONDS", SECONDS));
        Self(Deadline::new(what, within, move || connection.abort()))
    }
}
