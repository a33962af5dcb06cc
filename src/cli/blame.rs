//! `strata blame`.

use std::ffi::OsString;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::layers::created_by;
use crate::cli::listing::shown;
use crate::cli::output::{print, table_text};
use crate::service::{BlameRow, Depth, TreePath};

/// Show which layer of an image has made a file what it is
///
/// CONTENT is the layer that last changed the content, ATTRIBUTES the one that last changed
/// permissions, owner or extended attributes, or the time of what is not a directory. CREATED BY is
/// what made the first of the two. Of a directory, what is in it is listed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata blame my/app:1:/etc/passwd\n  strata blame -r \
                        my/app:1:/usr/local")]
pub(crate) struct Arguments {
    /// All that is below a directory, and itself
    #[arg(short, long)]
    recursive: bool,

    /// Print commands in full
    #[arg(long)]
    no_trunc: bool,

    /// What to look at; without a path the root
    #[arg(value_name = "IMAGE[:/PATH]")]
    place: OsString,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let depth = if arguments.recursive { Depth::All } else { Depth::Entries };
    let rows = context.strata()?.blame(&TreePath::parse(&arguments.place), depth)?;
    let text = |row: &BlameRow| {
        let content = row.content.map_or("-".to_owned(), |layer| layer.to_string());
        let by = created_by(&row.created_by, arguments.no_trunc);
        let cells = format!("{content}\t{}\t{by}\t", row.attributes);
        [cells.as_bytes(), &shown(&row.path), b"\n"].concat()
    };
    let header = b"CONTENT\tATTRIBUTES\tCREATED BY\tPATH\n".to_vec();
    let lines = std::iter::once(header).chain(rows.iter().map(text));
    print(&table_text(&lines.collect::<Vec<_>>().concat()))
}
