//! `strata images --tree`: a row for each image with all its names, and what it takes.

use std::collections::BTreeMap;

use crate::cli::error::Failure;
use crate::cli::format::size;
use crate::cli::output;
use crate::digest::Digest;
use crate::service::ImageRow;

const HEADER: [&str; 5] = ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"];
/// Columns whose cells stand on the right.
const ON_THE_RIGHT: [bool; 5] = [false, false, true, true, false];
const GAP: &str = "   ";
const LEGEND: &str = " i Info →   U  In Use";

/// Prints images as docker 29 does; those without a name only where `all` are asked for.
pub(crate) fn print(rows: Vec<ImageRow>, all: bool) -> Result<(), Failure> {
    let mut images: BTreeMap<Digest, (Vec<String>, ImageRow)> = BTreeMap::new();
    for row in rows {
        let name = row.reference.as_ref().map(crate::image::Reference::familiar);
        images.entry(row.manifest).or_insert_with(|| (Vec::new(), row)).0.extend(name);
    }
    let mut images: Vec<_> = images.into_values().collect();
    images.retain(|(names, _)| all || !names.is_empty());
    images.iter_mut().for_each(|(names, _)| names.sort());
    images.sort_by(|(a, _), (b, _)| (a.is_empty(), a).cmp(&(b.is_empty(), b)));
    let mut lines = vec![HEADER.map(str::to_owned)];
    for (names, row) in images {
        lines.extend(cells(names, &row));
    }
    print_lines(&lines)
}

/// Returns the lines of an image: its names, the last with its sizes, and what it runs on.
fn cells(mut names: Vec<String>, row: &ImageRow) -> Vec<[String; 5]> {
    let last = names.pop().unwrap_or_else(|| "<untagged>".to_owned());
    let used = if row.containers > 0 { " U" } else { "" };
    let sizes = [size(row.size), size(row.content), used.to_owned()];
    let line = |name: String, id: String| {
        let [disk, content, used] = sizes.clone();
        [name, id, disk, content, used]
    };
    let bare = |name: String| [name, String::new(), String::new(), String::new(), String::new()];
    let mut lines: Vec<_> = names.into_iter().map(bare).collect();
    lines.push(line(last, row.id.short()));
    lines.push(line(format!("└─ {}", row.platform), row.manifest.short()));
    lines
}

fn print_lines(lines: &[[String; 5]]) -> Result<(), Failure> {
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let total: usize = widths.iter().sum::<usize>() + GAP.len() * (HEADER.len() - 1);
    let mut out = format!("{LEGEND:>total$}\n");
    for (number, line) in lines.iter().enumerate() {
        let cell = |(column, text): (usize, &String)| {
            let width = widths[column];
            // Titles stand on the left.
            if ON_THE_RIGHT[column] && number > 0 {
                format!("{text:>width$}")
            } else {
                format!("{text:<width$}")
            }
        };
        let cells: Vec<_> = line.iter().enumerate().map(cell).collect();
        out.push_str(cells.join(GAP).trim_end());
        out.push('\n');
    }
    output::print(out.as_bytes())
}
