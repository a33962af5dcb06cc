//! `strata undo`.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::mount::{serve, wait_for_answer};
use crate::cli::output::line;
use crate::cli::progress::Shown;
use crate::service::{Background, MountRequest, UndoRequest, Undone};

/// Put a container back to a snapshot
///
/// The present state is kept as a snapshot first, so that this can be undone too. A container that is
/// mounted is unmounted for a moment and mounted again; nobody may be using the mount.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata snapshot work && rm -r /mnt/etc && strata undo work\n  \
                        strata undo work before-upgrade"
)]
pub(crate) struct Arguments {
    /// Do not keep the present state
    #[arg(long)]
    no_keep: bool,

    /// Print only the name of the snapshot that keeps the present state
    #[arg(short, long)]
    quiet: bool,

    /// The container
    container: String,

    /// The snapshot; the last one that 'strata snapshot' took if it is not said
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// What the process that will mount the container again is told when it has been unmounted.
const UNMOUNTED: &[u8] = b"unmounted";

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let Arguments { no_keep, quiet, container, name } = arguments;
    let request = UndoRequest { container, name, keep: !no_keep };
    let Some((id, mount)) = context.strata()?.mount_to_undo(&request)? else {
        return tell(&undo(&request, context)?, quiet);
    };
    let again = MountRequest {
        what: id,
        target: mount.target,
        writable: false,
        name: None,
        options: mount.options,
        foreground: false,
    };
    match Background::fork_with_orders()? {
        (Background::Child(ready), orders) => mount_when_told(&again, orders, ready, context),
        (Background::Parent(started, child), mut orders) => {
            let undone = umount_and_undo(&again.what, &mut orders, &request, context);
            // Whatever came of it, the other process mounts what is there now.
            drop(orders);
            let mounted = wait_for_answer(started, child);
            tell(&undone?, quiet)?;
            mounted.map(drop)
        }
    }
}

fn undo(request: &UndoRequest, context: &Context) -> Result<Undone, Failure> {
    Ok(context.strata_for_work(Arc::new(Shown::new(true)))?.undo(request)?)
}

fn umount_and_undo(
    container: &str,
    orders: &mut File,
    request: &UndoRequest,
    context: &Context,
) -> Result<Undone, Failure> {
    context.strata()?.umount(container, false)?;
    orders.write_all(UNMOUNTED)?;
    undo(request, context)
}

/// Mounts a container again when the process that undoes has unmounted it and is done, or is gone: so
/// nobody who interrupts or kills that is left without the mount.
fn mount_when_told(
    again: &MountRequest,
    mut orders: File,
    ready: File,
    context: &Context,
) -> Result<(), Failure> {
    let mut told = Vec::new();
    orders.read_to_end(&mut told)?;
    if told != UNMOUNTED {
        return Ok(());
    }
    serve(again, context, Some(ready))
}

fn tell(undone: &Undone, quiet: bool) -> Result<(), Failure> {
    let Undone { container, to, kept } = undone;
    match kept {
        Some(kept) if quiet => line(kept),
        None if quiet => Ok(()),
        Some(kept) => line(&format!(
            "{container} is back at snapshot {to}; what was before is kept as {kept}"
        )),
        None => line(&format!("{container} is back at snapshot {to}")),
    }
}
