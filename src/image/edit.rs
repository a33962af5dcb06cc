//! `Edit`: one change of a config by its parts, as the options of mutate say it.
//!
//! Unlike the instructions of a Dockerfile (`change.rs`) an edit is taken literally, without
//! variables, and it can take away. It must not know which image the config belongs to.

use std::fmt;

use serde_json::Value;

use crate::image::Error;
use crate::image::Result;
use crate::image::change::Fault;
use crate::image::change::is_signal;
use crate::image::change::json_list;
use crate::image::change::ports;
use crate::image::config::ContainerConfig;

/// One change of a config, with the text that was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Sets a variable of the environment: `NAME=VALUE`.
    Env(String),
    /// Takes a variable away.
    UnsetEnv(String),
    /// Sets a label: `KEY=VALUE`.
    Label(String),
    /// Takes a label away.
    UnsetLabel(String),
    /// Sets the program that always runs, and takes the arguments away: a JSON list, or words.
    Entrypoint(String),
    /// Sets the arguments or the program: a JSON list, or words.
    Cmd(String),
    /// Sets the user; empty for none.
    User(String),
    /// Sets the directory that the program starts in; empty for none.
    WorkDir(String),
    /// Adds a directory that is kept outside the image.
    Volume(String),
    /// Takes such a directory away.
    UnsetVolume(String),
    /// Adds ports: `80`, `80/udp`, `80-90/tcp`.
    Expose(String),
    /// Takes ports away.
    UnsetExpose(String),
    /// Sets the signal that stops the program; empty for none.
    StopSignal(String),
}

impl fmt::Display for Edit {
    /// Writes the edit as history has it, in the words of a Dockerfile where it has such.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (instruction, text) = self.parts();
        let unset = match self {
            Self::UnsetEnv(_)
            | Self::UnsetLabel(_)
            | Self::UnsetVolume(_)
            | Self::UnsetExpose(_) => "unset ",
            _ => "",
        };
        write!(f, "{unset}{instruction} {text}")
    }
}

/// Applies `edits` to `config`, in their order.
///
/// # Errors
/// [`Error::Change`] when an edit has a fault; `config` is then as before.
pub fn apply_edits(edits: &[Edit], config: &mut ContainerConfig) -> Result<()> {
    let mut edited = config.clone();
    for edit in edits {
        let instruction = edit.parts().0.to_owned();
        edit.apply(&mut edited).map_err(|reason| Error::Change { instruction, reason })?;
    }
    *config = edited;
    Ok(())
}

impl Edit {
    /// Returns the instruction that changes the same part, and the text.
    fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Env(text) | Self::UnsetEnv(text) => ("ENV", text),
            Self::Label(text) | Self::UnsetLabel(text) => ("LABEL", text),
            Self::Entrypoint(text) => ("ENTRYPOINT", text),
            Self::Cmd(text) => ("CMD", text),
            Self::User(text) => ("USER", text),
            Self::WorkDir(text) => ("WORKDIR", text),
            Self::Volume(text) | Self::UnsetVolume(text) => ("VOLUME", text),
            Self::Expose(text) | Self::UnsetExpose(text) => ("EXPOSE", text),
            Self::StopSignal(text) => ("STOPSIGNAL", text),
        }
    }

    fn apply(&self, config: &mut ContainerConfig) -> Fault<()> {
        match self {
            Self::Env(text) => set_env(pair(text)?, &mut config.env),
            Self::UnsetEnv(name) => config.env.retain(|entry| name_of(entry) != name),
            Self::Label(text) => {
                let (key, value) = pair(text)?;
                config.labels.insert(key.to_owned(), value.to_owned());
            }
            Self::UnsetLabel(key) => drop(config.labels.remove(key)),
            Self::Entrypoint(text) => {
                (config.entrypoint, config.cmd) = (command(text)?, None);
                config.args_escaped = false;
            }
            Self::Cmd(text) => {
                config.cmd = command(text)?;
                config.args_escaped = false;
            }
            Self::User(text) => config.user.clone_from(text),
            Self::WorkDir(text) if text.is_empty() || text.starts_with('/') => {
                config.working_dir.clone_from(text);
            }
            Self::WorkDir(text) => return Err(not_absolute(text)),
            Self::Volume(path) if path.starts_with('/') => {
                config.volumes.insert(path.clone(), empty_object());
            }
            Self::Volume(path) => return Err(not_absolute(path)),
            Self::UnsetVolume(path) => drop(config.volumes.remove(path)),
            Self::Expose(text) => {
                let added = ports(text)?.into_iter().map(|port| (port, empty_object()));
                config.exposed_ports.extend(added);
            }
            Self::UnsetExpose(text) => {
                let gone = ports(text)?;
                config.exposed_ports.retain(|port, _| !gone.contains(port));
            }
            Self::StopSignal(text) if text.is_empty() => config.stop_signal = None,
            Self::StopSignal(text) if is_signal(text) => config.stop_signal = Some(text.clone()),
            Self::StopSignal(text) => return Err(format!("invalid signal: {text}")),
        }
        Ok(())
    }
}

fn set_env((name, value): (&str, &str), env: &mut Vec<String>) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|old| name_of(old) == name) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn pair(text: &str) -> Fault<(&str, &str)> {
    let wrong = || format!("{text:?} must be of the form NAME=VALUE");
    text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)
}

/// Returns the list of a JSON form, or the words between white space; none of an empty text.
fn command(text: &str) -> Fault<Option<Vec<String>>> {
    let words = match json_list(text)? {
        Some(list) => list,
        None => text.split_whitespace().map(str::to_owned).collect(),
    };
    Ok((!words.is_empty()).then_some(words))
}

fn not_absolute(path: &str) -> String {
    format!("{path:?} is not a path from the root: it must begin with /")
}

fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> ContainerConfig {
        let config = json!({
            "User": "1", "Env": ["PATH=/bin", "A=1"], "Cmd": ["old"], "Labels": {"a": "1"},
            "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}, "81/tcp": {}},
            "StopSignal": "SIGINT", "WorkingDir": "/w", "ArgsEscaped": true,
        });
        serde_json::from_value(config).expect("a config")
    }

    fn edited(edit: Edit) -> Value {
        let mut config = config();
        apply_edits(&[edit], &mut config).expect("it can be applied");
        serde_json::to_value(config).expect("JSON")
    }

    #[test]
    fn each_edit_changes_its_part() {
        let table = [
            (Edit::Env("A=$B=c".into()), "Env", json!(["PATH=/bin", "A=$B=c"])),
            (Edit::Env("B=".into()), "Env", json!(["PATH=/bin", "A=1", "B="])),
            (Edit::UnsetEnv("A".into()), "Env", json!(["PATH=/bin"])),
            (Edit::UnsetEnv("none".into()), "Env", json!(["PATH=/bin", "A=1"])),
            (Edit::Label("b=x=y z".into()), "Labels", json!({"a": "1", "b": "x=y z"})),
            (Edit::UnsetLabel("a".into()), "Labels", Value::Null),
            (Edit::Cmd("sh -c".into()), "Cmd", json!(["sh", "-c"])),
            (Edit::Cmd(r#"["a b"]"#.into()), "Cmd", json!(["a b"])),
            (Edit::Cmd(String::new()), "Cmd", Value::Null),
            (Edit::Entrypoint("/bin/x".into()), "Entrypoint", json!(["/bin/x"])),
            (Edit::Entrypoint("/bin/x".into()), "Cmd", Value::Null),
            (Edit::User("a:b".into()), "User", json!("a:b")),
            (Edit::User(String::new()), "User", Value::Null),
            (Edit::WorkDir("/x".into()), "WorkingDir", json!("/x")),
            (Edit::WorkDir(String::new()), "WorkingDir", Value::Null),
            (Edit::Volume("/v".into()), "Volumes", json!({"/data": {}, "/v": {}})),
            (Edit::UnsetVolume("/data".into()), "Volumes", Value::Null),
            (Edit::UnsetExpose("80-81".into()), "ExposedPorts", Value::Null),
            (Edit::StopSignal("9".into()), "StopSignal", json!("9")),
            (Edit::StopSignal(String::new()), "StopSignal", Value::Null),
        ];
        for (edit, field, expected) in table {
            assert_eq!(edited(edit.clone())[field], expected, "{edit}");
        }
        let ports = edited(Edit::Expose("9-10/udp".into()))["ExposedPorts"].clone();
        assert_eq!(ports.as_object().expect("ports").len(), 4);
    }

    #[test]
    fn a_faulty_edit_changes_nothing_and_says_what_it_is() {
        for (edit, said) in [
            (Edit::Env("A".into()), "ENV: \"A\" must be of the form NAME=VALUE"),
            (Edit::Label("=x".into()), "LABEL: \"=x\" must be of the form NAME=VALUE"),
            (Edit::Volume("v".into()), "VOLUME: \"v\" is not a path from the root"),
            (Edit::WorkDir("w".into()), "WORKDIR: \"w\" is not a path from the root"),
            (Edit::Expose("http".into()), "EXPOSE: invalid containerPort: http"),
            (Edit::StopSignal("x".into()), "STOPSIGNAL: invalid signal: x"),
            (Edit::Cmd("[1]".into()), "CMD: when using JSON array syntax"),
        ] {
            let mut config = config();
            let before = config.clone();
            let edits = [Edit::User("2".into()), edit];
            let error = apply_edits(&edits, &mut config).expect_err(said);
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(config, before);
        }
    }

    #[test]
    fn history_has_the_words_of_a_dockerfile() {
        assert_eq!(Edit::Env("A=1".into()).to_string(), "ENV A=1");
        assert_eq!(Edit::UnsetLabel("a".into()).to_string(), "unset LABEL a");
    }
}
