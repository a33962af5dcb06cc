//! What fuzzing does with this room: templates, and what options take.

use crate::cli::format::{filter, parse_size, shorten};
use crate::cli::table::align;
use crate::cli::template::{Functions, Template, from_document, row};

/// Reads a template, and renders with it what stands behind the first zero: a document, or the fields
/// of a row.
pub(crate) fn template(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let Ok(text) = str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let document = parts.next().unwrap_or_default();
    if let Ok(template) = Template::parse(text, Functions::Object) {
        let document = serde_json::from_slice(document).unwrap_or_default();
        drop(template.render(&from_document(document)));
    }
    let value = String::from_utf8_lossy(document).into_owned();
    let label = |name: &str| name.to_owned();
    for functions in [Functions::Row("formatter.imageContext"), Functions::Header] {
        if let Ok(template) = Template::parse(text, functions) {
            let fields = [("ID", value.clone()), ("Labels", String::new())];
            if let Ok(line) = template.render(&row(fields, Some(label))) {
                drop(align(&line));
            }
        }
    }
}

/// Reads what options take.
pub(crate) fn options(text: &str) {
    drop((parse_size(text), filter(text), shorten(text, 12)));
}
