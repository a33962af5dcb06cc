//! The functions that docker adds to Go's.

use gotmpl::{Result, Template, TemplateError, Value};

use crate::cli::template::value::{Html, json, string};

/// What a template is used for, on which its functions and the words of its errors depend.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Functions {
    /// One object, as `inspect` shows it.
    Object,
    /// A row of a list; docker's name of its type.
    Row(&'static str),
    /// The header of a table: the functions leave a title as it is.
    Header,
}

/// The names of all functions.
pub(crate) const NAMES: [&str; 27] = [
    "and", "call", "eq", "ge", "gt", "html", "index", "join", "js", "json", "le", "len", "lower",
    "lt", "ne", "not", "or", "pad", "print", "printf", "println", "slice", "split", "title",
    "truncate", "upper", "urlquery",
];

/// Gives a template the functions.
pub(crate) fn with_functions(template: Template, functions: Functions) -> Template {
    let template = template.func("index", index);
    if matches!(functions, Functions::Header) {
        let names = ["json", "split", "join", "title", "lower", "upper", "truncate", "pad"];
        let unchanged = |args: &[Value]| Ok(args.first().cloned().unwrap_or(Value::Nil));
        return names.into_iter().fold(template, |template, name| template.func(name, unchanged));
    }
    let html = if matches!(functions, Functions::Row(_)) { Html::Escaped } else { Html::Plain };
    template
        .func("json", move |args| Ok(string(&json(argument(args, "json", 1, 0)?, html))))
        .func("split", |args| {
            let (text, by) = (text(args, "split", 2, 0)?, text(args, "split", 2, 1)?);
            let parts: Vec<Value> = match by.as_str() {
                "" => text.chars().map(|c| string(&c.to_string())).collect(),
                by => text.split(by).map(string).collect(),
            };
            Ok(Value::List(parts.into()))
        })
        .func("join", |args| {
            let by = text(args, "join", 2, 1)?;
            match argument(args, "join", 2, 0)? {
                Value::List(list) => {
                    let parts: Vec<_> = list.iter().map(ToString::to_string).collect();
                    Ok(string(&parts.join(&by)))
                }
                other => Err(TemplateError::Exec(format!(
                    "wrong type for value; expected []string; got {}",
                    other.type_name()
                ))),
            }
        })
        .func("title", |args| Ok(string(&title(&text(args, "title", 1, 0)?))))
        .func("lower", |args| Ok(string(&text(args, "lower", 1, 0)?.to_lowercase())))
        .func("upper", |args| Ok(string(&text(args, "upper", 1, 0)?.to_uppercase())))
        .func("pad", |args| {
            let spaces = |at| Ok::<_, TemplateError>(" ".repeat(number(args, "pad", 3, at)?));
            let text = text(args, "pad", 3, 0)?;
            // Docker leaves an empty text as it is.
            if text.is_empty() {
                return Ok(string(""));
            }
            Ok(string(&format!("{}{text}{}", spaces(1)?, spaces(2)?)))
        })
        .func("truncate", |args| {
            let (text, most) = (text(args, "truncate", 2, 0)?, number(args, "truncate", 2, 1)?);
            Ok(string(&text.chars().take(most).collect::<String>()))
        })
}

/// As Go's, for which what a map of texts does not have is empty.
fn index(args: &[Value]) -> Result<Value> {
    let Some((first, keys)) = args.split_first() else {
        return Err(TemplateError::ArgCount { name: "index".to_owned(), expected: 1, got: 0 });
    };
    keys.iter().try_fold(first.clone(), |value, key| {
        Ok(match (&value, value.index(key)?) {
            (Value::Map(_), Value::Nil) => string(""),
            (_, found) => found,
        })
    })
}

fn argument<'a>(args: &'a [Value], name: &str, expected: usize, at: usize) -> Result<&'a Value> {
    let wrong = || TemplateError::ArgCount { name: name.to_owned(), expected, got: args.len() };
    if args.len() != expected {
        return Err(wrong());
    }
    args.get(at).ok_or_else(wrong)
}

fn text(args: &[Value], name: &str, expected: usize, at: usize) -> Result<String> {
    match argument(args, name, expected, at)? {
        Value::String(text) => Ok(text.to_string()),
        other => Err(TemplateError::Exec(format!(
            "wrong type for value; expected string; got {}",
            other.type_name()
        ))),
    }
}

fn number(args: &[Value], name: &str, expected: usize, at: usize) -> Result<usize> {
    let number = argument(args, name, expected, at)?.as_int().unwrap_or(0);
    Ok(usize::try_from(number).unwrap_or(0))
}

/// Returns the text with the first letter of every word as a capital.
fn title(text: &str) -> String {
    let mut before = ' ';
    let mut titled = String::with_capacity(text.len());
    for letter in text.chars() {
        if before.is_whitespace() || (!before.is_alphanumeric() && before != '_' && before != '\'')
        {
            titled.extend(letter.to_uppercase());
        } else {
            titled.push(letter);
        }
        before = letter;
    }
    titled
}
