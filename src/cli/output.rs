//! Tables and JSON on standard output.

use std::io::{self, Write};

use serde::Serialize;
use tabwriter::TabWriter;

use crate::cli::error::Failure;

/// Prints lines whose cells are separated by tabs, as docker aligns them.
pub(crate) fn table(header: &str, rows: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    let mut text = format!("{header}\n");
    for row in rows {
        text.push_str(&row);
        text.push('\n');
    }
    print(&table_text(text.as_bytes())?)
}

/// Returns lines whose cells are separated by tabs, aligned.
pub(crate) fn table_text(lines: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut writer = TabWriter::new(Vec::new()).minwidth(10).padding(3);
    writer.write_all(lines)?;
    let text = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    Ok(text)
}

/// Prints bytes.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    print(format!("{text}\n").as_bytes())
}

/// Prints a document, indented by four.
pub(crate) fn json(document: &impl Serialize) -> Result<(), Failure> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    document.serialize(&mut serializer).map_err(io::Error::other)?;
    text.push(b'\n');
    print(&text)
}
