//! `strata system df`.

use clap::Args;
use jiff::Timestamp;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{COMMAND_COLUMNS, ago, command, created_ago, size_of_room};
use crate::cli::output::print;
use crate::cli::rows::{List, Row, TEMPLATE_ERROR};
use crate::cli::table::align;
use crate::image::Reference;
use crate::service::{ContainerStatus, Room, Usage};

/// Show how much room everything takes on the disk, and what would come back
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata system df\n  strata system df -v")]
pub(crate) struct Arguments {
    /// Each image and container
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,

    /// How to print: table, table TEMPLATE, json, or a template of Go
    #[arg(long)]
    format: Option<String>,
}

const TITLES: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];
const TABLE: &str = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
const NONE: &str = "<none>";

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let usage = context.strata()?.usage()?;
    if arguments.verbose {
        return print(verbose(&usage).as_bytes());
    }
    let list = List {
        kind: "formatter.diskUsageImagesContext",
        failure: TEMPLATE_ERROR,
        titles: &TITLES,
        table: TABLE,
    };
    let rows = vec![
        row("Images", &usage.images),
        row("Containers", &usage.containers),
        row("Local Volumes", &Room::default()),
        row("Build Cache", &Room::default()),
    ];
    list.print(arguments.format.as_deref(), rows)
}

fn row(kind: &str, room: &Room) -> Row {
    let mut reclaimable = size_of_room(room.reclaimable);
    if let Some(percent) = (room.reclaimable * 100).checked_div(room.bytes) {
        reclaimable.push_str(&format!(" ({percent}%)"));
    }
    let fields = vec![
        ("Type", kind.to_owned()),
        ("TotalCount", room.total.to_string()),
        ("Active", room.active.to_string()),
        ("Size", size_of_room(room.bytes)),
        ("Reclaimable", reclaimable),
    ];
    Row { fields, labels: None }
}

fn verbose(usage: &Usage) -> String {
    let now = Timestamp::now();
    let mut images =
        "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS\n"
            .to_owned();
    for (row, room) in &usage.image_rows {
        let name = row.reference.as_ref();
        let repository = name.map_or(NONE.to_owned(), Reference::familiar_name);
        images.push_str(&format!(
            "{repository}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            name.and_then(Reference::tag).unwrap_or(NONE),
            row.id.short(),
            created_ago(row.created.as_deref(), now),
            size_of_room(room.bytes),
            size_of_room(room.bytes - room.unique_bytes),
            size_of_room(room.unique_bytes),
            row.containers,
        ));
    }
    let mut containers =
        "CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES\n".to_owned();
    for (row, bytes) in &usage.container_rows {
        let id: String = row.id.chars().take(12).collect();
        let state = match row.status {
            ContainerStatus::Created => "Created",
            ContainerStatus::Mounted(_) => "Mounted",
            ContainerStatus::Dead(_) => "Dead",
        };
        let room = size_of_room(*bytes);
        let (command, age) = (command(&row.command, COMMAND_COLUMNS), ago(row.created, now));
        let (image, name) = (&row.image, &row.name);
        containers
            .push_str(&format!("{id}\t{image}\t{command}\t0\t{room}\t{age}\t{state}\t{name}\n"));
    }
    format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}",
        align(&images),
        align(&containers)
    )
}
