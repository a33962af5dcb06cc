//! `strata remount`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::progress::Shown;
use crate::service::{Background, Nudge, Serving};

/// Go on with a mount in a new process, of this version of strata, while programs work in it
///
/// The process that has served it hands over what is open and ends. Nobody in the mount notices. If the
/// new process cannot go on, the old one does, and this command says why.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata remount --upgrade /mnt")]
pub(crate) struct Arguments {
    /// Replace the process that serves the mount
    #[arg(long, required = true)]
    upgrade: bool,

    /// A mount point, or a container
    #[arg(value_name = "DIR|CONTAINER")]
    what: String,
}

/// What the new process says: that it serves, and that the old one has nothing in hand any more.
const SERVES: &str = "serves";
const DONE: &str = "done";

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let (id, target) = context.strata()?.mounted_container(&arguments.what)?;
    Nudge::check(&target)?;
    match Background::fork()? {
        Background::Child(told) => serve(&id, context, told),
        Background::Parent(told, child) => follow(told, child, &target),
    }
}

/// Serves in the place of another process.
fn serve(id: &str, context: &Context, mut told: File) -> Result<(), Failure> {
    let strata = context.strata_with(Arc::new(Shown::new(true)))?;
    let replacing = strata.replace_server(id)?;
    replacing.detach()?;
    let nudged = if replacing.wants_nudges() { SERVES } else { DONE };
    // Who waited may be gone; the mount is served all the same.
    drop(writeln!(told, "{nudged}"));
    Ok(replacing.serve(|| drop(writeln!(told, "{DONE}")))?)
}

/// Waits until the new process serves alone; until then it asks the mount what brings the last requests
/// to the old one.
fn follow(told: File, child: Serving, target: &Path) -> Result<(), Failure> {
    let mut lines = BufReader::new(told).lines();
    let mut nudge = None;
    loop {
        match lines.next().transpose()?.as_deref() {
            Some(SERVES) => nudge = Some(Nudge::begin(target)?),
            Some(_) => break,
            // It has said itself why.
            None => return Err(Failure::Told(child.exit_code()?)),
        }
    }
    if let Some(nudge) = nudge {
        nudge.end();
    }
    Ok(())
}
