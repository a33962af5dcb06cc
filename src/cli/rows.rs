//! Lists, in the form that `--format` asks for: a table, JSON, or what a template makes of each row.

use crate::cli::error::Failure;
use crate::cli::output::print;
use crate::cli::table::align;
use crate::cli::template::{Functions, Template, text};

/// A row: its fields by docker's names.
pub(crate) type Row = Vec<(&'static str, String)>;

/// A kind of list.
#[derive(Debug)]
pub(crate) struct List<'a> {
    /// Docker's name of the type of a row, which its messages have.
    pub(crate) kind: &'static str,
    /// The titles of the fields.
    pub(crate) titles: &'a [(&'static str, &'static str)],
    /// The template of a table that nobody has described.
    pub(crate) table: &'a str,
}

impl List<'_> {
    /// Prints rows: as a table, or as `format` says.
    pub(crate) fn print(&self, format: Option<&str>, rows: Vec<Row>) -> Result<(), Failure> {
        let wrong = |text: String| Failure::Words(format!("template parsing error: {text}"));
        let (source, is_table) = self.source(format.unwrap_or("table"));
        let template = Template::parse(&source, Functions::Row(self.kind)).map_err(wrong)?;
        let mut out = String::new();
        if is_table {
            let header = Template::parse(&source, Functions::Header).map_err(wrong)?;
            let titles = self.titles.iter().map(|(name, title)| (*name, (*title).to_owned()));
            out = header.render(&text(titles)).map_err(wrong)? + "\n";
        }
        for row in rows {
            out.push_str(&template.render(&text(row)).map_err(wrong)?);
            out.push('\n');
        }
        if !is_table {
            return print(out.as_bytes());
        }
        print(align(&out).as_bytes())
    }

    /// Returns the template that a format means, and whether it is a table.
    fn source(&self, format: &str) -> (String, bool) {
        let (source, is_table) = match format.strip_prefix("table") {
            Some(rest) if rest.trim().is_empty() => (self.table, true),
            Some(rest) => (rest, true),
            None if format == "json" => ("{{json .}}", false),
            None => (format, false),
        };
        (source.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n"), is_table)
    }
}

/// Tells whether a format leaves the columns of a table to the command.
pub(crate) fn is_plain_table(format: Option<&str>) -> bool {
    format.is_none_or(|format| format.trim() == "table")
}
