//! Lists, in the form that `--format` asks for: a table, JSON, or what a template makes of each row.

use std::collections::BTreeMap;

use crate::cli::error::Failure;
use crate::cli::output::print;
use crate::cli::table::align;
use crate::cli::template::{Functions, Template, row};

/// A row of a list.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its fields by docker's names.
    pub(crate) fields: Vec<(&'static str, String)>,
    /// The labels that `.Label` looks in, if rows of its kind have them.
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

/// How docker begins to say that a template is wrong.
pub(crate) const TEMPLATE_ERROR: &str = "template parsing error";

/// A kind of list.
#[derive(Debug)]
pub(crate) struct List<'a> {
    /// Docker's name of the type of a row, which its messages have.
    pub(crate) kind: &'static str,
    /// How docker begins to say that a template does not fit a row.
    pub(crate) failure: &'static str,
    /// The titles of the fields.
    pub(crate) titles: &'a [(&'static str, &'static str)],
    /// The template of a table that nobody has described.
    pub(crate) table: &'a str,
}

impl List<'_> {
    /// Prints rows: as a table, or as `format` says.
    pub(crate) fn print(&self, format: Option<&str>, rows: Vec<Row>) -> Result<(), Failure> {
        let wrong = |text: String| Failure::Words(format!("{TEMPLATE_ERROR}: {text}"));
        let failed = |text: String| Failure::Words(format!("{}: {text}", self.failure));
        let format = format.filter(|format| !format.is_empty());
        let (source, is_table) = self.source(format.unwrap_or("table"));
        let template = Template::parse(&source, Functions::Row(self.kind)).map_err(wrong)?;
        let mut out = String::new();
        if is_table {
            let header = Template::parse(&source, Functions::Header).map_err(wrong)?;
            let titles = self.titles.iter().map(|(name, title)| (*name, (*title).to_owned()));
            out = header.render(&row(titles, Some(label_title))).map_err(failed)? + "\n";
        }
        for Row { fields, labels } in rows {
            let label = labels
                .map(|labels| move |name: &str| labels.get(name).cloned().unwrap_or_default());
            out.push_str(&template.render(&row(fields, label)).map_err(failed)?);
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

/// Returns the title of a column of labels, as docker makes it: what follows the last dot.
fn label_title(name: &str) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.replace(['-', '_'], " ")
}

/// Tells whether a format leaves the columns of a table to the command.
pub(crate) fn is_plain_table(format: Option<&str>) -> bool {
    format.is_none_or(|format| ["", "table"].contains(&format.trim()))
}
