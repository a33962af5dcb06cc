//! `strata ps`.

use clap::Args;
use jiff::Timestamp;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{COMMAND_COLUMNS, ago, command, filter, go_time, size};
use crate::cli::rows::{List, Row, is_plain_table};
use crate::service::{ContainerRow, ContainerSizes, ContainerStatus};

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

    /// Only containers that fit: id=, name=, label=, label!=, status=created|mounted|dead,
    /// ancestor=IMAGE, before=CONTAINER, since=CONTAINER (repeatable)
    #[arg(short, long = "filter", value_name = "FILTER", value_parser = filter)]
    filters: Vec<(String, String)>,

    /// How to print: table, table TEMPLATE, json, or a template of Go
    #[arg(long)]
    format: Option<String>,

    /// Show the containers that were made last, so many, mounted or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,

    /// Show the container that was made last, mounted or not
    #[arg(short, long)]
    latest: bool,

    /// Show how much each has written, and how much its snapshots keep
    #[arg(short, long)]
    size: bool,
}

const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t\
                     {{.Names}}";
const TITLES: [(&str, &str); 14] = [
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata()?;
    let mut rows = strata.filtered_containers(&arguments.filters)?;
    let last = if arguments.latest { Some(1) } else { arguments.last };
    // Who asks for a state gets what is in it.
    let by_state = arguments.filters.iter().any(|(key, _)| key == "status");
    if last.is_none() && !by_state && !arguments.all {
        rows.retain(|row| row.status != ContainerStatus::Created);
    }
    rows.truncate(last.unwrap_or(usize::MAX));
    let only_ids = arguments.quiet && is_plain_table(arguments.format.as_deref());
    let format = match only_ids {
        true => Some("{{.ID}}".to_owned()),
        false => context.list_format(arguments.format.as_deref(), "psFormat"),
    };
    let format = format.as_deref();
    let now = Timestamp::now();
    let asks = |format: &str| [".Size", "json ."].iter().any(|word| format.contains(word));
    let sized = arguments.size || format.is_some_and(asks);
    let mut shown = Vec::new();
    for row in &rows {
        let size = match sized.then(|| strata.sizes(&row.id, row.manifest)).transpose()? {
            Some(sizes) => all_sizes(&sizes, strata.kept(row)?),
            None => size(0),
        };
        shown.push(shown_row(row, size, arguments.no_trunc, now));
    }
    let table = match arguments.size {
        true => format!("{TABLE}\t{{{{.Size}}}}"),
        false => TABLE.to_owned(),
    };
    let list = List {
        kind: "formatter.ContainerContext",
        failure: "failed to execute template",
        titles: &TITLES,
        table: &table,
    };
    list.print(format, shown)
}

/// Returns what a container has written, that with its image, and what its snapshots keep.
fn all_sizes(sizes: &ContainerSizes, kept: u64) -> String {
    let kept = if kept == 0 { String::new() } else { format!(", snapshots {}", size(kept)) };
    let both = size(sizes.written + sizes.image);
    format!("{} (virtual {both}{kept})", size(sizes.written))
}

fn shown_row(row: &ContainerRow, written: String, no_trunc: bool, now: Timestamp) -> Row {
    let columns = if no_trunc { usize::MAX } else { COMMAND_COLUMNS };
    let short = || row.id.chars().take(12).collect();
    let labels: Vec<_> = row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let (state, mount) = match &row.status {
        ContainerStatus::Created => ("created", String::new()),
        ContainerStatus::Mounted(mount) => ("mounted", mount.target.display().to_string()),
        ContainerStatus::Dead(mount) => ("dead", mount.target.display().to_string()),
    };
    let fields = vec![
        ("ID", if no_trunc { row.id.clone() } else { short() }),
        ("Names", row.name.clone()),
        ("Image", row.image.clone()),
        ("Command", command(&row.command, columns)),
        ("CreatedAt", go_time(row.created)),
        ("RunningFor", ago(row.created, now)),
        ("Ports", String::new()),
        ("State", state.to_owned()),
        ("Status", status(&row.status, now)),
        ("Size", written),
        ("Labels", labels.join(",")),
        ("Mounts", mount),
        ("LocalVolumes", "0".to_owned()),
        ("Networks", String::new()),
    ];
    Row { fields, labels: Some(row.labels.clone()) }
}

fn status(status: &ContainerStatus, now: Timestamp) -> String {
    match status {
        ContainerStatus::Created => "Created".to_owned(),
        ContainerStatus::Mounted(state) => {
            let access = if state.writable { "rw" } else { "ro" };
            let target = state.target.display();
            let survives = if state.server.is_some() { ", survives" } else { "" };
            let by = state.ways().map(|ways| format!(" ({ways}{survives})"));
            let age = ago(state.since, now);
            format!("Mounted {access} at {target} {age}{}", by.unwrap_or_default())
        }
        ContainerStatus::Dead(state) => {
            let target = state.target.display();
            format!("Dead (mounted at {target}, process {} is gone)", state.pid)
        }
    }
}
