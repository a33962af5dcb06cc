//! `strata mount`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::ago;
use crate::cli::output::{line, table};
use crate::cli::progress::Shown;
use crate::service::{Background, MountRequest, Serving};

/// Mount an image or a container as a folder
///
/// An image is mounted read-only, a container with its changes. Without arguments it lists what is
/// mounted.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata mount debian:12 /mnt\n  strata mount --rw --name work \
                  debian:12 /mnt\n  strata create --name work debian:12 && strata mount work \
                  /mnt\n\nOptions for -o, as in fstab(5): ro rw dev nodev suid nosuid exec noexec \
                  atime noatime diratime nodiratime sync async dirsync \
                  nodirsync defaults, allow_other, noallow_other, \
                  default_permissions, acl, noacl, timeout=SECONDS (the kernel believes for so long what \
                  it was told; for ever), transport=auto|dev-fuse|io-uring, \
                  data=auto|cache|passthrough (whether the kernel keeps contents, or reads and writes files \
                  itself), verify=open|always|off, context=LABEL (SELinux), survive (as --survive), and volatile (nothing \
                  is synced; what a crash leaves is not defined)."
)]
pub(crate) struct Arguments {
    /// Make a container of the image, to keep changes in, and print its id
    #[arg(long)]
    rw: bool,

    /// The name of that container; a random one if it is not said
    #[arg(long, requires = "rw")]
    name: Option<String>,

    /// Mount options, separated by commas (repeatable)
    #[arg(short, long = "options", value_name = "OPTIONS")]
    options: Vec<String>,

    /// How requests come from the kernel: io-uring where the kernel offers it, else dev-fuse
    #[arg(long, value_name = "auto|dev-fuse|io-uring")]
    transport: Option<String>,

    /// Check contents of the image before they are handed out: when a file is first opened (open), at
    /// every opening (always), or not (off). What is damaged is an error for who opens it
    #[arg(long, value_name = "open|always|off")]
    verify: Option<String>,

    /// Let the mount live on when the process that serves it dies: another one is started and goes on
    #[arg(long)]
    survive: bool,

    /// Serve the mount in the foreground, until it is unmounted or interrupted
    #[arg(long)]
    foreground: bool,

    /// A container, or an image
    #[arg(value_name = "CONTAINER|IMAGE", requires = "target")]
    what: Option<String>,

    /// Where to mount it: a directory
    #[arg(value_name = "DIR")]
    target: Option<PathBuf>,
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let (Some(what), Some(target)) = (arguments.what, arguments.target) else {
        return list(context);
    };
    let transport = arguments.transport.map(|transport| format!("transport={transport}"));
    let verify = arguments.verify.map(|verify| format!("verify={verify}"));
    let survive = arguments.survive.then(|| "survive".to_owned());
    let more = [transport, verify, survive];
    let request = MountRequest {
        what,
        target,
        writable: arguments.rw,
        name: arguments.name,
        options: arguments.options.into_iter().chain(more.into_iter().flatten()).collect(),
        foreground: arguments.foreground,
    };
    if arguments.foreground { serve(&request, context, None) } else { start(&request, context) }
}

/// Serves a mount in another process, and returns when it answers.
fn start(request: &MountRequest, context: &Context) -> Result<(), Failure> {
    match Background::fork()? {
        Background::Child(ready) => serve(request, context, Some(ready)),
        Background::Parent(started, child) => {
            let id = wait_for_answer(started, child)?;
            if request.writable { line(&id) } else { Ok(()) }
        }
    }
}

/// Waits until a mount answers that another process serves, and returns the id of its container.
pub(crate) fn wait_for_answer(mut started: File, child: Serving) -> Result<String, Failure> {
    let mut told = String::new();
    started.read_to_string(&mut told)?;
    match told.strip_prefix(READY) {
        Some(id) => Ok(id.trim_end().to_owned()),
        // It has said itself why.
        None => Err(Failure::Told(child.exit_code()?)),
    }
}

/// What the serving process says when the mount answers; the container's id follows.
const READY: &str = "ready ";

/// Mounts and serves in this process; `ready` is told when the mount answers.
pub(crate) fn serve(
    request: &MountRequest,
    context: &Context,
    ready: Option<File>,
) -> Result<(), Failure> {
    let strata = context.strata_with(Arc::new(Shown::new(true)))?;
    let mounting = strata.mount(request)?;
    match ready {
        None if request.writable => line(mounting.container_id())?,
        None => {}
        Some(mut ready) => {
            mounting.detach()?;
            let told = format!("{READY}{}\n", mounting.container_id());
            // Who waited may be gone; the mount is there all the same.
            drop(ready.write_all(told.as_bytes()));
        }
    }
    Ok(mounting.serve()?)
}

fn list(context: &Context) -> Result<(), Failure> {
    let now = jiff::Timestamp::now();
    let rows = context.strata()?.mounts()?;
    let rows = rows.iter().map(|row| {
        let access = if row.state.writable { "rw" } else { "ro" };
        let status = match row.alive {
            true => {
                let age = ago(row.state.since, now);
                let by = row.state.ways().map(|ways| format!(" ({ways})"));
                let (by, age) = (by.unwrap_or_default(), age.trim_end_matches(" ago"));
                let pid = row.state.pid;
                match row.state.server {
                    Some(server) => format!("served by {server} and held by {pid}{by} for {age}"),
                    None => format!("served by {pid}{by} for {age}"),
                }
            }
            false => format!("dead, process {} is gone", row.state.pid),
        };
        let target = row.state.target.display();
        format!("{target}\t{}\t{access}\t{}\t{status}", row.image, row.name)
    });
    table("MOUNT POINT\tIMAGE\tACCESS\tCONTAINER\tSTATUS", rows)
}
