//! `strata overlay`, and what the program does when it is called as another overlay driver.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::cli::error::Failure;
use crate::service::{Background, StackOptions, StackRequest, mount_stack};

/// Mount a stack of plain directories, as fuse-overlayfs does
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  strata overlay -o lowerdir=/top:/bottom,upperdir=/changes,workdir=/work \
                  /mnt\n\nOptions for -o: lowerdir=A:B:C[::DATA] (first on top; \\: for a colon), \
                  upperdir= and workdir= (without them it is read-only), fsync=0 or volatile (nothing \
                  is synced), redirect_dir=on|off|nofollow (rename a directory of a lower one by a mark; on), \
                  metacopy=on|off (copy attributes without contents; off), index=on|off (keep hard \
                  links of the lower; on), userxattr, xattr_permissions=1|2 (owners and modes in \
                  security.fuseoverlayfs.override_stat or user.containers.override_stat), noxattrs, \
                  static_nlink (directories have one link), uidmapping= and gidmapping=DISK:SHOWN:COUNT, \
                  squash_to_root, squash_to_uid=, squash_to_gid=, and those of 'strata mount'."
)]
pub(crate) struct Arguments {
    /// Options, separated by commas (repeatable)
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<OsString>,

    /// Serve the mount in the foreground
    #[arg(short, long)]
    foreground: bool,

    /// Say on standard error what is done, and stay in the foreground
    #[arg(short, long)]
    debug: bool,

    /// The type of the file system, as mount(8) gives it: not used
    #[arg(short = 't', value_name = "TYPE", hide = true, action = ArgAction::Set)]
    _kind: Option<String>,

    /// Where to mount it; a word before it is the source that mount(8) gives, and not used
    #[arg(value_name = "DIR", required = true, num_args = 1..=2)]
    target: Vec<PathBuf>,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let target = arguments.target.into_iter().next_back();
    let target = target.ok_or_else(|| Failure::text("the mount point is missing"))?;
    let request = StackRequest { options: arguments.options, target };
    if arguments.debug {
        for ignored in StackOptions::parse(&request.options)?.ignored {
            eprintln!("option {} changes nothing here: {}", ignored.option, ignored.reason);
        }
    }
    if arguments.foreground || arguments.debug {
        return Ok(mount_stack(&request)?.serve()?);
    }
    match Background::fork()? {
        Background::Child(ready) => serve(&request, ready),
        Background::Parent(mut started, child) => {
            let mut told = String::new();
            started.read_to_string(&mut told)?;
            // A child that did not get that far has said itself why.
            if told.is_empty() { Err(Failure::Told(child.exit_code()?)) } else { Ok(()) }
        }
    }
}

fn serve(request: &StackRequest, mut ready: File) -> Result<(), Failure> {
    let mounted = mount_stack(request)?;
    mounted.detach()?;
    // Who waited may be gone; the mount is there all the same.
    drop(ready.write_all(b"ready"));
    drop(ready);
    Ok(mounted.serve()?)
}
