//! `strata history`.

use clap::{ArgAction, Args};
use jiff::Timestamp;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{created_ago, shorten, size};
use crate::cli::output::{line, table};
use crate::service::HistoryRow;

/// Show how an image came to be
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata history --no-trunc debian:12")]
pub(crate) struct Arguments {
    /// Print sizes and times for people
    #[arg(short = 'H', long, default_value_t = true, action = ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: bool,

    /// Print only ids
    #[arg(short, long)]
    quiet: bool,

    /// Print ids and commands in full
    #[arg(long)]
    no_trunc: bool,

    /// The image
    image: String,
}

const MISSING: &str = "<missing>";
const COMMAND_COLUMNS: usize = 45;

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let rows = context.strata()?.history(&arguments.image)?;
    let id = |row: &HistoryRow| match row.image {
        Some(id) if arguments.no_trunc => id.to_string(),
        Some(id) => id.short(),
        None => MISSING.to_owned(),
    };
    if arguments.quiet {
        return rows.iter().try_for_each(|row| line(&id(row)));
    }
    let now = Timestamp::now();
    let created_header = if arguments.human { "CREATED" } else { "CREATED AT" };
    let header = format!("IMAGE\t{created_header}\tCREATED BY\tSIZE\tCOMMENT");
    let text = |row: &HistoryRow| {
        // A tab or a line break in a command would break the table.
        let command = row.created_by.replace(['\t', '\n'], " ");
        let command = if arguments.no_trunc { command } else { shorten(&command, COMMAND_COLUMNS) };
        let created = match arguments.human {
            true => created_ago(row.created.as_deref(), now),
            false => row.created.clone().unwrap_or_default(),
        };
        let size = if arguments.human { size(row.size) } else { row.size.to_string() };
        let comment = row.comment.replace(['\t', '\n'], " ");
        format!("{}\t{created}\t{command}\t{size}\t{comment}", id(row))
    };
    table(&header, rows.iter().map(text))
}
