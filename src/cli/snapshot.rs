//! `strata snapshot`, `strata snapshots` and `strata container snapshot rm`.

use std::collections::HashMap;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{ago, filter, go_time, size};
use crate::cli::output::line;
use crate::cli::progress::Shown;
use crate::cli::rows::{List, Row, TEMPLATE_ERROR, is_plain_table};
use crate::service::{Footprint, SnapshotRequest, SnapshotRow};

/// Keep the present state of a container, to go back to
///
/// The container may be mounted. The name of the snapshot is printed; 'strata undo' goes back to it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata snapshot work\n  strata snapshot -m 'all tests pass' work \
                        before-upgrade"
)]
pub(crate) struct Arguments {
    /// What to remember of it
    #[arg(short, long)]
    message: Option<String>,

    /// The container
    container: String,

    /// The name of the snapshot; the next number if it is not said
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// List snapshots of containers
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata snapshots work\n  strata container snapshot rm work $(strata \
                        snapshots -q -f undo=true work)"
)]
pub(crate) struct ListArguments {
    /// Print only names
    #[arg(short, long)]
    quiet: bool,

    /// Only snapshots that fit: name=, undo=BOOL (kept by 'strata undo') (repeatable)
    #[arg(short, long = "filter", value_name = "FILTER", value_parser = filter)]
    filters: Vec<(String, String)>,

    /// How to print: table, table TEMPLATE, json, or a template of Go
    #[arg(long)]
    format: Option<String>,

    /// Only those of this container
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
}

/// Remove snapshots of a container
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata container snapshot rm work 1 2")]
pub(crate) struct RemoveArguments {
    /// The container
    container: String,

    /// Snapshots
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

const TABLE: &str = "{{.Container}}\t{{.Name}}\t{{.CreatedSince}}\t{{.Size}}\t{{.UniqueSize}}\t\
                     {{.Message}}";
const TITLES: [(&str, &str); 7] = [
    ("Container", "CONTAINER"),
    ("Name", "SNAPSHOT"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Message", "MESSAGE"),
];

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let Arguments { message, container, name } = arguments;
    let strata = context.strata_for_work(Arc::new(Shown::new(true)))?;
    line(&strata.snapshot(&SnapshotRequest { container, name, message })?)
}

pub(crate) fn run_list(arguments: &ListArguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata()?;
    let rows = strata.snapshots(arguments.container.as_deref(), &arguments.filters)?;
    let (kind, table) = ("snapshotContext", TABLE);
    let list = List { kind, failure: TEMPLATE_ERROR, titles: &TITLES, table };
    let format = arguments.format.as_deref();
    let only_names = arguments.quiet && is_plain_table(format);
    let now = Timestamp::now();
    let mut rooms = HashMap::new();
    let mut shown = Vec::new();
    for row in &rows {
        let id = &row.container_id;
        if !only_names && !rooms.contains_key(id) {
            rooms.insert(id, strata.snapshot_rooms(id)?);
        }
        let room = rooms.get(id).and_then(|rooms| rooms.get(&row.snapshot.name));
        shown.push(fields(row, room.copied().unwrap_or_default(), now));
    }
    list.print(if only_names { Some("{{.Name}}") } else { format }, shown)
}

fn fields(row: &SnapshotRow, room: Footprint, now: Timestamp) -> Row {
    let snapshot = &row.snapshot;
    let message = match (&snapshot.message, &snapshot.before_undo) {
        (Some(message), _) => message.clone(),
        (None, Some(to)) => format!("before undo to {to}"),
        (None, None) => String::new(),
    };
    let fields = vec![
        ("Container", row.container.clone()),
        ("Name", snapshot.name.clone()),
        ("CreatedSince", ago(snapshot.created, now)),
        ("CreatedAt", go_time(snapshot.created)),
        ("Size", size(room.bytes)),
        ("UniqueSize", size(room.unique_bytes)),
        ("Message", message),
    ];
    Row { fields, labels: None }
}

pub(crate) fn run_remove(arguments: &RemoveArguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata()?;
    let mut errors = Vec::new();
    for name in &arguments.names {
        match strata.remove_snapshot(&arguments.container, name) {
            Ok(()) => line(name)?,
            Err(error) => errors.push(error),
        }
    }
    Failure::collect(errors)
}
