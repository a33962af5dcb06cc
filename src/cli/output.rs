//! Tables and JSON on standard output.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::cli::error::{Failure, without_controls};
use crate::cli::table::align;

/// Prints lines whose cells are separated by tabs, as docker aligns them.
pub(crate) fn table(header: &str, rows: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    let mut text = format!("{header}\n");
    for row in rows {
        text.push_str(&row);
        text.push('\n');
    }
    print(&table_text(text.as_bytes()))
}

/// Returns lines whose cells are separated by tabs, aligned. What is not text is shown as it can be, and
/// what would move the cursor of a terminal is not sent to one.
pub(crate) fn table_text(lines: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(lines);
    if io::stdout().is_terminal() {
        return align(&without_controls(&text)).into_bytes();
    }
    align(&text).into_bytes()
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

/// Prints a document on one line.
pub(crate) fn compact_json(document: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string(document).map_err(io::Error::other)?)
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
