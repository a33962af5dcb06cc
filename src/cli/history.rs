//! `strata history`.

use clap::{ArgAction, Args};
use jiff::Timestamp;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{created_ago, shorten, size};
use crate::cli::rows::{List, Row, TEMPLATE_ERROR, is_plain_table};
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

    /// How to print: table, table TEMPLATE, json, or a template of Go
    #[arg(long)]
    format: Option<String>,

    /// The image
    image: String,
}

const MISSING: &str = "<missing>";
const COMMAND_COLUMNS: usize = 45;

const TABLE: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const TABLE_OF_NUMBERS: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const TITLES: [(&str, &str); 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let rows = context.strata()?.history(&arguments.image)?;
    let now = Timestamp::now();
    let rows = rows.iter().map(|row| fields(row, arguments, now)).collect();
    let table = if arguments.human { TABLE } else { TABLE_OF_NUMBERS };
    let list =
        List { kind: "image.historyContext", failure: TEMPLATE_ERROR, titles: &TITLES, table };
    let format = arguments.format.as_deref();
    if arguments.quiet && is_plain_table(format) {
        return list.print(Some("{{.ID}}"), rows);
    }
    list.print(format, rows)
}

fn fields(row: &HistoryRow, arguments: &Arguments, now: Timestamp) -> Row {
    let id = match row.image {
        Some(id) if arguments.no_trunc => id.to_string(),
        Some(id) => id.short(),
        None => MISSING.to_owned(),
    };
    // A tab or a line break in a command would break the table.
    let command = row.created_by.replace(['\t', '\n'], " ");
    let command = if arguments.no_trunc { command } else { shorten(&command, COMMAND_COLUMNS) };
    let since = created_ago(row.created.as_deref(), now);
    let at = row.created.clone().unwrap_or_default();
    let fields = vec![
        ("ID", id),
        ("CreatedSince", if arguments.human { since } else { at.clone() }),
        ("CreatedAt", at),
        ("CreatedBy", command),
        ("Size", if arguments.human { size(row.size) } else { row.size.to_string() }),
        ("Comment", row.comment.replace(['\t', '\n'], " ")),
    ];
    Row { fields, labels: None }
}
