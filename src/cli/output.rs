//! Tables and JSON on standard output.

use std::io::{self, Write};

use serde::Serialize;
use tabwriter::TabWriter;

use crate::cli::error::Failure;

/// Prints lines whose cells are separated by tabs, as docker aligns them.
pub(crate) fn table(header: &str, rows: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    let mut writer = TabWriter::new(Vec::new()).minwidth(10).padding(3);
    writeln!(writer, "{header}")?;
    for row in rows {
        writeln!(writer, "{row}")?;
    }
    let text = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    print(&text)
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
