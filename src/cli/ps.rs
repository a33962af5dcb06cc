//! `strata ps`.

use clap::Args;
use jiff::Timestamp;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{ago, command};
use crate::cli::output::{line, table};
use crate::service::{ContainerRow, ContainerStatus};

/// List containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata ps -a")]
pub(crate) struct Arguments {
    /// Show those that are not mounted, too
    #[arg(short, long)]
    all: bool,

    /// Print only ids
    #[arg(short, long)]
    quiet: bool,

    /// Print ids and commands in full
    #[arg(long)]
    no_trunc: bool,
}

const COMMAND_COLUMNS: usize = 20;

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let mut rows = context.strata()?.containers()?;
    rows.retain(|row| arguments.all || row.status != ContainerStatus::Created);
    let id = |row: &ContainerRow| match arguments.no_trunc {
        true => row.id.clone(),
        false => row.id.chars().take(12).collect(),
    };
    if arguments.quiet {
        return rows.iter().try_for_each(|row| line(&id(row)));
    }
    let now = Timestamp::now();
    let columns = if arguments.no_trunc { usize::MAX } else { COMMAND_COLUMNS };
    let text = |row: &ContainerRow| {
        let (command, created) = (command(&row.command, columns), ago(row.created, now));
        let status = status(&row.status, now);
        format!("{}\t{}\t{command}\t{created}\t{status}\t\t{}", id(row), row.image, row.name)
    };
    let header = "CONTAINER ID\tIMAGE\tCOMMAND\tCREATED\tSTATUS\tPORTS\tNAMES";
    table(header, rows.iter().map(text))
}

fn status(status: &ContainerStatus, now: Timestamp) -> String {
    match status {
        ContainerStatus::Created => "Created".to_owned(),
        ContainerStatus::Mounted(state) => {
            let access = if state.writable { "rw" } else { "ro" };
            let target = state.target.display();
            format!("Mounted {access} at {target} {}", ago(state.since, now))
        }
        ContainerStatus::Dead(state) => {
            let target = state.target.display();
            format!("Dead (mounted at {target}, process {} is gone)", state.pid)
        }
    }
}
