//! `strata layers`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{shorten, size};
use crate::cli::output::{line, table};
use crate::service::LayerRow;

/// List the layers of an image, and what each hides of those below it
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata layers debian:12")]
pub(crate) struct Arguments {
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,

    /// Print ids and commands in full
    #[arg(long)]
    no_trunc: bool,

    /// The image
    image: String,
}

const COMMAND_COLUMNS: usize = 45;

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let rows = context.strata()?.layers(&arguments.image)?;
    let id = |row: &LayerRow| match arguments.no_trunc {
        true => row.diff_id.to_string(),
        false => row.diff_id.0.short(),
    };
    if arguments.quiet {
        return rows.iter().try_for_each(|row| line(&id(row)));
    }
    let text = |row: &LayerRow| {
        let hides = match row.hidden_files {
            0 => "-".to_owned(),
            1 => format!("1 file, {}", size(row.hidden_bytes)),
            files => format!("{files} files, {}", size(row.hidden_bytes)),
        };
        let by = created_by(&row.created_by, arguments.no_trunc);
        let (number, entries) = (row.number, row.entries);
        format!("{number}\t{}\t{}\t{entries}\t{hides}\t{by}", id(row), size(row.size))
    };
    table("LAYER\tDIFF ID\tSIZE\tENTRIES\tHIDES\tCREATED BY", rows.iter().map(text))
}

/// Returns a command as a cell of a table, which a tab or a line break would break.
pub(crate) fn created_by(text: &str, whole: bool) -> String {
    let text = text.replace(['\t', '\n'], " ");
    if whole { text } else { shorten(&text, COMMAND_COLUMNS) }
}
