//! Templates of Go, as `--format` and `inspect -f` take them.
//!
//! The engine is gotmpl. What it does otherwise than Go is put right here, so that a person sees what
//! docker shows: the texts of its errors with their place, blocks without an end, functions that do
//! not exist, and values that Go knows as nil.

mod blocks;
mod functions;
mod place;
mod value;

use gotmpl::parse::{ListNode, Parser};
use gotmpl::{MissingKey, TemplateError, Value};

use crate::cli::error::Failure;
use crate::cli::output::{compact_json, line};

pub(crate) use functions::Functions;
pub(crate) use value::{from_document, row};

use crate::cli::template::blocks::check_blocks;
use crate::cli::template::functions::with_functions;
use crate::cli::template::place::{
    Place, calls_of_field, field_place, function_place, unknown_function,
};
use crate::cli::template::value::LABEL;

/// Maps whose keys a person chooses: one that is missing is no error.
const OPEN_MAPS: [&str; 4] = ["Labels", "Data", "ExposedPorts", "Volumes"];

/// A template.
pub(crate) struct Template {
    program: gotmpl::Template,
    lenient: gotmpl::Template,
    tree: ListNode,
    functions: Functions,
}

impl Template {
    /// Returns the template that a text means.
    ///
    /// # Errors
    /// What is wrong with the text, in Go's words.
    pub(crate) fn parse(text: &str, functions: Functions) -> Result<Self, String> {
        let tree = match parse(text) {
            // The engine does not say what is empty.
            Err(error) if error.ends_with("empty command") => {
                return Err(check_blocks(text).err().unwrap_or(error));
            }
            parsed => parsed?,
        };
        check_blocks(text)?;
        if let Some((name, line)) = unknown_function(&tree) {
            return Err(format!("template: :{line}: function {name:?} not defined"));
        }
        // The engine calls what a field holds only when it is told to.
        let mut called = text.to_owned();
        if !matches!(functions, Functions::Object) {
            for at in calls_of_field(&tree, LABEL).into_iter().rev() {
                called.insert_str(at, "call ");
            }
        }
        let program = |missing| {
            let program = with_functions(gotmpl::Template::new(""), functions);
            program.missing_key(missing).parse(&called).map_err(|error| syntax(&error))
        };
        let lenient = program(MissingKey::Invalid)?;
        Ok(Self { program: program(MissingKey::Error)?, lenient, tree, functions })
    }

    /// Returns what the template makes of a value.
    ///
    /// # Errors
    /// What cannot be done and where, in Go's words.
    pub(crate) fn render(&self, data: &Value) -> Result<String, String> {
        match self.program.execute_to_string(data) {
            Ok(text) => Ok(text),
            Err(TemplateError::MissingKey { key }) if self.may_miss(&key) => {
                self.lenient.execute_to_string(data).map_err(|error| self.explain(&error))
            }
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn may_miss(&self, key: &str) -> bool {
        let header = matches!(self.functions, Functions::Header);
        let before = field_place(&self.tree, key).and_then(|place| place.before);
        header || before.is_some_and(|before| OPEN_MAPS.contains(&before.as_str()))
    }

    /// Returns what went wrong as Go says it.
    fn explain(&self, error: &TemplateError) -> String {
        let (place, what) = match error {
            TemplateError::UndefinedVariable(name) => {
                return format!("template: :1: undefined variable {name:?}");
            }
            TemplateError::MissingKey { key } => {
                let what = match self.functions {
                    Functions::Row(kind) => {
                        format!("can't evaluate field {key} in type *{kind}")
                    }
                    _ => format!("map has no entry for key {key:?}"),
                };
                (field_place(&self.tree, key), what)
            }
            TemplateError::ArgCount { name, expected, got } => {
                let what = format!("wrong number of args for {name}: want {expected} got {got}");
                let place = function_place(&self.tree, &[name]);
                (place.or_else(|| field_place(&self.tree, name)), what)
            }
            TemplateError::IndexOutOfRange { index } => {
                let what = format!("error calling index: index out of range: {index}");
                (function_place(&self.tree, &["index", "slice"]), what)
            }
            TemplateError::Exec(text) => self.explain_text(text),
            other => (None, other.to_string()),
        };
        match place {
            Some(Place { line, column, shown, .. }) => {
                format!("template: :{line}:{column}: executing \"\" at <{shown}>: {what}")
            }
            None => format!("template: :1: executing \"\": {what}"),
        }
    }

    fn explain_text(&self, text: &str) -> (Option<Place>, String) {
        let words = text.strip_prefix("can't evaluate field ");
        match words.and_then(|rest| rest.split_once(' ')) {
            Some((field, _)) => {
                let kind = if text.ends_with("string") { "string" } else { "interface {}" };
                let kind =
                    if matches!(self.functions, Functions::Row(_)) { kind } else { "interface {}" };
                let what = format!("can't evaluate field {field} in type {kind}");
                (field_place(&self.tree, field), what)
            }
            None => (None, text.to_owned()),
        }
    }
}

/// Prints a document as `--format` asks for it: `json`, or what a template makes of it.
pub(crate) fn print_document(document: serde_json::Value, format: &str) -> Result<(), Failure> {
    if format == "json" {
        return compact_json(&document);
    }
    let wrong = |text: String| format!("template parsing error: {text}");
    let template = Template::parse(format, Functions::Object)
        .map_err(|text| Failure::Template(wrong(text)))?;
    let text = template.render(&from_document(document));
    line(&text.map_err(|text| Failure::Words(wrong(text)))?)
}

fn parse(text: &str) -> Result<ListNode, String> {
    let parser = Parser::new(text, "{{", "}}").map_err(|error| syntax(&error))?;
    Ok(parser.parse().map_err(|error| syntax(&error))?.0)
}

/// Returns what is wrong with a text as Go says it: with its line and without its column.
fn syntax(error: &TemplateError) -> String {
    match error {
        TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
            format!("template: :{line}: {message}")
        }
        other => format!("template: :1: {other}"),
    }
}

#[cfg(test)]
mod tests;
