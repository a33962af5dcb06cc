//! Values as Go's templates see them, and their JSON.
//!
//! Go knows a list that is nil from one that is empty: both print `[]`, but the JSON of the first is
//! `null`. It prints an empty struct as `{}`. The engine has neither, so each is one value that is
//! known by its address.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use gotmpl::{TemplateError, Value};
use serde_json::Value as Json;

/// The method of a row that has labels.
pub(crate) const LABEL: &str = "Label";

type Map = BTreeMap<Arc<str>, Value>;

static NIL_LIST: LazyLock<Arc<[Value]>> = LazyLock::new(|| Arc::from(Vec::new()));
static NIL_MAP: LazyLock<Arc<Map>> = LazyLock::new(Arc::default);
static UNSET: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(String::new()));
static EMPTY_STRUCT: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("{}"));

/// What a field of a configuration is when nobody has set it.
#[derive(Clone, Copy)]
enum Unset {
    Text,
    List,
    Map,
    Pointer,
}

/// The fields of a configuration that can be asked for though they are not set.
const CONFIG: [(&str, Unset); 12] = [
    ("Cmd", Unset::List),
    ("Entrypoint", Unset::List),
    ("Env", Unset::List),
    ("ExposedPorts", Unset::Map),
    ("Healthcheck", Unset::Pointer),
    ("Labels", Unset::Map),
    ("OnBuild", Unset::List),
    ("Shell", Unset::List),
    ("StopSignal", Unset::Text),
    ("User", Unset::Text),
    ("Volumes", Unset::Map),
    ("WorkingDir", Unset::Text),
];

/// Whether JSON is made fit to stand in HTML, as Go does unless it is told not to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Html {
    Escaped,
    Plain,
}

/// Returns a text.
pub(crate) fn string(text: &str) -> Value {
    Value::String(text.into())
}

/// Returns a row of a list: its fields, and what a call of `.Label` answers.
pub(crate) fn row<'a>(
    fields: impl IntoIterator<Item = (&'a str, String)>,
    label: Option<impl Fn(&str) -> String + Send + Sync + 'static>,
) -> Value {
    let fields = fields.into_iter().map(|(name, value)| (Arc::from(name), string(&value)));
    let mut map: Map = fields.collect();
    if let Some(label) = label {
        let call = move |arguments: &[Value]| match arguments {
            [Value::String(name)] => Ok(string(&label(name))),
            other => Err(TemplateError::ArgCount {
                name: LABEL.to_owned(),
                expected: 1,
                got: other.len(),
            }),
        };
        map.insert(LABEL.into(), Value::Function(Arc::new(call)));
    }
    Value::Map(Arc::new(map))
}

/// Returns a document as Go's typed structs have it.
pub(crate) fn from_document(document: Json) -> Value {
    from_json("", document)
}

fn from_json(name: &str, json: Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::Uint(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text.into()),
        Json::Array(list) => Value::List(list.into_iter().map(|v| from_json("", v)).collect()),
        Json::Object(object) => Value::Map(Arc::new(map(name, object))),
    }
}

fn map(name: &str, object: serde_json::Map<String, Json>) -> Map {
    let is_set = ["ExposedPorts", "Volumes"].contains(&name);
    let value = |key: &str, value: Json| match value {
        Json::Object(inner) if is_set && inner.is_empty() => {
            Value::String(Arc::clone(&EMPTY_STRUCT))
        }
        value => from_json(key, value),
    };
    let mut map: Map = object
        .into_iter()
        .map(|(key, inner)| (Arc::from(key.as_str()), value(&key, inner)))
        .collect();
    if name == "Config" {
        for (field, unset) in CONFIG {
            map.entry(field.into()).or_insert_with(|| unset.value());
        }
    }
    map
}

impl Unset {
    fn value(self) -> Value {
        match self {
            Self::Text => Value::String(Arc::clone(&UNSET)),
            Self::List => Value::List(Arc::clone(&NIL_LIST)),
            Self::Map => Value::Map(Arc::clone(&NIL_MAP)),
            Self::Pointer => Value::Nil,
        }
    }
}

/// Returns the JSON of a value; in a map what is not set is left out.
pub(crate) fn json(value: &Value, html: Html) -> String {
    let text = to_json(value).to_string();
    match html {
        Html::Plain => text,
        Html::Escaped => {
            text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
        }
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil | Value::Function(_) => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(number) => Json::from(*number),
        Value::Uint(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::String(text) if Arc::ptr_eq(text, &EMPTY_STRUCT) => Json::Object(Default::default()),
        Value::String(text) => Json::from(&**text),
        Value::List(list) if Arc::ptr_eq(list, &NIL_LIST) => Json::Null,
        Value::List(list) => list.iter().map(to_json).collect(),
        Value::Map(map) if Arc::ptr_eq(map, &NIL_MAP) => Json::Null,
        Value::Map(map) => {
            let set = map.iter().filter(|(_, value)| !is_unset(value));
            Json::Object(set.map(|(key, value)| (key.to_string(), to_json(value))).collect())
        }
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Nil | Value::Function(_) => true,
        Value::String(text) => Arc::ptr_eq(text, &UNSET),
        Value::List(list) => Arc::ptr_eq(list, &NIL_LIST),
        Value::Map(map) => Arc::ptr_eq(map, &NIL_MAP),
        _ => false,
    }
}
