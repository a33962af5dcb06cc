//! The `--change` instructions of commit and import: a Dockerfile's words applied to a config.
//!
//! Only instructions that change the config and not the files are understood. Their meaning is that
//! of docker's commit: all are read before the first is applied, and the config changes only if all
//! can be applied. It must not know which image the config belongs to.

use serde_json::Value;

use crate::image::Error;
use crate::image::Result;
use crate::image::config::ContainerConfig;
use crate::image::expand::expand;
use crate::image::expand::split_words;
use crate::image::healthcheck::read_healthcheck;

const COMMANDS: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];
const SIGNAL_MAX: u32 = 64;
/// The largest n of `RTMIN+n`.
const REAL_TIME_MAX: u32 = 15;

/// Applies `changes`, the values of `--change`, to `config`.
///
/// # Errors
/// A change is not one of the eleven instructions, or has a fault; `config` is then as before.
pub fn apply_changes<S: AsRef<str>>(changes: &[S], config: &mut ContainerConfig) -> Result<()> {
    let lines: Vec<_> = changes.iter().flat_map(|change| logical_lines(change.as_ref())).collect();
    let changes = lines.iter().map(|line| Change::read(line)).collect::<Result<Vec<_>>>()?;
    let mut state = State { config: config.clone(), cmd_is_set: false };
    for change in &changes {
        state
            .apply(change)
            .map_err(|reason| Error::Change { instruction: change.command.to_owned(), reason })?;
    }
    *config = state.config;
    Ok(())
}

/// The result of reading a part of an instruction; what is wrong is told in words.
pub(super) type Fault<T> = std::result::Result<T, String>;

/// Joins lines that end in a backslash, drops comments and empty lines.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let current = lines.last_mut().expect("the list starts with a line");
        match line.trim_end().strip_suffix('\\') {
            Some(line) => current.push_str(line),
            None => {
                current.push_str(line);
                lines.push(String::new());
            }
        }
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}

/// One instruction: its name, and what follows it.
struct Change<'a> {
    command: &'static str,
    flags: Vec<&'a str>,
    rest: &'a str,
}

impl<'a> Change<'a> {
    fn read(line: &'a str) -> Result<Self> {
        let (word, rest) = split_word(line);
        let command = COMMANDS
            .into_iter()
            .find(|command| command.eq_ignore_ascii_case(word))
            .ok_or_else(|| Error::ChangeCommand(word.to_lowercase()))?;
        let mut change = Self { command, flags: Vec::new(), rest };
        while let (flag, rest) = split_word(change.rest)
            && flag.starts_with("--")
        {
            change.flags.push(flag);
            change.rest = rest;
        }
        Ok(change)
    }
}

/// Splits off the first word; white space around both parts is dropped.
pub(super) fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

struct State {
    config: ContainerConfig,
    /// Whether a CMD came before: an ENTRYPOINT then does not reset it.
    cmd_is_set: bool,
}

impl State {
    fn apply(&mut self, change: &Change<'_>) -> Fault<()> {
        let rest = change.rest;
        if let (Some(flag), true) = (change.flags.first(), change.command != "HEALTHCHECK") {
            return Err(format!("unknown flag: {flag}"));
        }
        if rest.is_empty() && !matches!(change.command, "CMD" | "ENTRYPOINT") {
            return Err("requires at least one argument".to_owned());
        }
        match change.command {
            "CMD" => self.cmd(rest),
            "ENTRYPOINT" => self.entrypoint(rest),
            "ENV" => self.env(rest),
            "EXPOSE" => self.expose(rest),
            "HEALTHCHECK" => self.healthcheck(&change.flags, rest),
            "LABEL" => self.label(rest),
            "ONBUILD" => self.on_build(rest),
            "STOPSIGNAL" => self.stop_signal(rest),
            "USER" => self.user(rest),
            "VOLUME" => self.volume(rest),
            _ => self.working_dir(rest),
        }
    }

    fn cmd(&mut self, rest: &str) -> Fault<()> {
        self.config.cmd = Some(self.command_line(rest)?);
        self.config.args_escaped = false;
        self.cmd_is_set = !rest.is_empty() && json_list(rest)?.is_none_or(|list| !list.is_empty());
        Ok(())
    }

    fn entrypoint(&mut self, rest: &str) -> Fault<()> {
        self.config.entrypoint = Some(self.command_line(rest)?);
        self.config.args_escaped = false;
        if !self.cmd_is_set {
            self.config.cmd = None;
        }
        Ok(())
    }

    /// Returns the list of a JSON form, or the shell with the line of a shell form.
    fn command_line(&self, rest: &str) -> Fault<Vec<String>> {
        if let Some(list) = json_list(rest)? {
            return Ok(list);
        }
        let mut line = match &self.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => DEFAULT_SHELL.map(str::to_owned).to_vec(),
        };
        line.extend((!rest.is_empty()).then(|| rest.to_owned()));
        Ok(line)
    }

    fn env(&mut self, rest: &str) -> Fault<()> {
        for (name, value) in self.pairs(rest)? {
            let entry = format!("{name}={value}");
            let is_same = |old: &&mut String| old.split('=').next() == Some(name.as_str());
            match self.config.env.iter_mut().find(is_same) {
                Some(old) => *old = entry,
                None => self.config.env.push(entry),
            }
        }
        Ok(())
    }

    fn label(&mut self, rest: &str) -> Fault<()> {
        let pairs = self.pairs(rest)?;
        self.config.labels.extend(pairs);
        Ok(())
    }

    /// Reads `KEY=value …`, or the old form `KEY value with spaces`.
    fn pairs(&self, rest: &str) -> Fault<Vec<(String, String)>> {
        let words = split_words(rest);
        if words.first().is_some_and(|word| word.contains('=')) {
            return words.iter().map(|word| self.pair(word.split_once('='), word)).collect();
        }
        let (name, value) = split_word(rest);
        if value.is_empty() {
            return Err("must have two arguments".to_owned());
        }
        Ok(vec![self.pair(Some((name, value)), rest)?])
    }

    fn pair(&self, pair: Option<(&str, &str)>, word: &str) -> Fault<(String, String)> {
        let Some((name, value)) = pair else {
            return Err(format!("can't find = in {word:?}: must be of the form name=value"));
        };
        let name = self.expand(name)?;
        if name.is_empty() {
            return Err("names can not be blank".to_owned());
        }
        Ok((name, self.expand(value)?))
    }

    fn expand(&self, word: &str) -> Fault<String> {
        expand(word, &self.config.env)
    }

    fn expose(&mut self, rest: &str) -> Fault<()> {
        for word in rest.split_whitespace() {
            for port in self.expand(word)?.split_whitespace() {
                let ports = ports(port)?.into_iter();
                self.config.exposed_ports.extend(ports.map(|port| (port, empty_object())));
            }
        }
        Ok(())
    }

    fn healthcheck(&mut self, flags: &[&str], rest: &str) -> Fault<()> {
        self.config.healthcheck = Some(read_healthcheck(flags, rest)?);
        Ok(())
    }

    fn on_build(&mut self, rest: &str) -> Fault<()> {
        match split_word(rest).0.to_uppercase().as_str() {
            "ONBUILD" => Err("chaining via `ONBUILD ONBUILD` isn't allowed".to_owned()),
            trigger @ ("FROM" | "MAINTAINER") => {
                Err(format!("{trigger} isn't allowed as an ONBUILD trigger"))
            }
            _ => {
                self.config.on_build.push(rest.trim_end().to_owned());
                Ok(())
            }
        }
    }

    fn stop_signal(&mut self, rest: &str) -> Fault<()> {
        let signal = self.expand(one_word(rest)?)?;
        if !is_signal(&signal) {
            return Err(format!("invalid signal: {signal}"));
        }
        self.config.stop_signal = Some(signal);
        Ok(())
    }

    fn user(&mut self, rest: &str) -> Fault<()> {
        self.config.user = self.expand(one_word(rest)?)?;
        Ok(())
    }

    fn volume(&mut self, rest: &str) -> Fault<()> {
        let paths = match json_list(rest)? {
            Some(list) => list,
            None => rest.split_whitespace().map(str::to_owned).collect(),
        };
        for path in paths {
            let path = self.expand(&path)?;
            if path.trim().is_empty() {
                return Err("a path can not be an empty string".to_owned());
            }
            self.config.volumes.insert(path, empty_object());
        }
        Ok(())
    }

    fn working_dir(&mut self, rest: &str) -> Fault<()> {
        let path = self.expand(rest.trim_end())?;
        if path.is_empty() {
            return Err("a path can not be an empty string".to_owned());
        }
        self.config.working_dir =
            if path.starts_with('/') { path } else { join(&self.config.working_dir, &path) };
        Ok(())
    }
}

fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}

/// Returns the list of a JSON form, none for another form.
pub(super) fn json_list(text: &str) -> Fault<Option<Vec<String>>> {
    let Ok(Value::Array(items)) = serde_json::from_str(text) else { return Ok(None) };
    let string = |item: Value| match item {
        Value::String(text) => Ok(text),
        _ => Err("when using JSON array syntax, arrays must be comprised of strings only"),
    };
    Ok(Some(items.into_iter().map(string).collect::<std::result::Result<_, _>>()?))
}

/// Takes the whole text as one argument, as docker does: white space inside belongs to it.
fn one_word(rest: &str) -> Fault<&str> {
    let word = rest.trim_end();
    if word.is_empty() { Err("requires exactly one argument".to_owned()) } else { Ok(word) }
}

/// Returns `port/protocol` for each port of `port[-port][/protocol]`.
pub(super) fn ports(text: &str) -> Fault<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    let invalid = || format!("invalid containerPort: {range}");
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().map_err(|_| invalid());
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Says whether the text is a signal of Linux: a number, or a name with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=SIGNAL_MAX).contains(&number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS.contains(&name) || is_real_time(name)
}

fn is_real_time(name: &str) -> bool {
    let is_offset = |text: &str| text.parse::<u32>().is_ok_and(|offset| offset <= REAL_TIME_MAX);
    let follows =
        |after: &str, sign| after.is_empty() || after.strip_prefix(sign).is_some_and(is_offset);
    name.strip_prefix("RTMIN").is_some_and(|after| follows(after, '+'))
        || name.strip_prefix("RTMAX").is_some_and(|after| follows(after, '-'))
}

/// Joins a relative path to a directory, and resolves `.` and `..` without looking at a disk.
fn join(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A config with something in every field that a change can meet.
    fn before() -> ContainerConfig {
        let config = json!({
            "Cmd": ["old"], "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/srv",
            "Labels": {"old": "1"},
        });
        serde_json::from_value(config).expect("a config")
    }

    /// Applies the changes and returns the fields that differ from before, `null` for none.
    fn changed(changes: &[&str]) -> std::result::Result<Value, String> {
        let mut config = before();
        apply_changes(changes, &mut config).map_err(|error| error.to_string())?;
        let value = |config| serde_json::to_value(config).expect("JSON");
        let (old, new) = (value(before()), value(config));
        let keys = |value: &Value| value.as_object().expect("an object").clone().into_iter();
        let keys = keys(&old).chain(keys(&new)).map(|(key, _)| key);
        Ok(keys
            .filter(|key| old[key] != new[key])
            .map(|key| (key.clone(), new[key].clone()))
            .collect())
    }

    #[test]
    fn each_instruction_changes_its_field_as_docker_does() {
        let table: Vec<(&[&str], Value)> = vec![
            (&["CMD echo  hi"], json!({"Cmd": ["/bin/sh", "-c", "echo  hi"]})),
            (&[r#"cmd ["a", "b c"]"#], json!({"Cmd": ["a", "b c"]})),
            (&["CMD []"], json!({"Cmd": []})),
            (&["CMD [a]"], json!({"Cmd": ["/bin/sh", "-c", "[a]"]})),
            (&["CMD $A"], json!({"Cmd": ["/bin/sh", "-c", "$A"]})),
            (&["CMD []", "ENTRYPOINT []"], json!({"Entrypoint": [], "Cmd": null})),
            (&["ENTRYPOINT x"], json!({"Entrypoint": ["/bin/sh", "-c", "x"], "Cmd": null})),
            (
                &["CMD y", r#"ENTRYPOINT ["x"]"#],
                json!({"Entrypoint": ["x"], "Cmd": ["/bin/sh", "-c", "y"]}),
            ),
            (
                &["ENV A=2 B=\"x y\" C=z\\ w"],
                json!({"Env": ["PATH=/bin", "A=2", "B=x y", "C=z w"]}),
            ),
            (&["ENV PATH=/opt:$PATH"], json!({"Env": ["PATH=/opt:/bin", "A=1"]})),
            (&["ENV A=2 B=$A", "ENV C=$A"], json!({"Env": ["PATH=/bin", "A=2", "B=1", "C=2"]})),
            (
                &["ENV B some \"text\" here"],
                json!({"Env": ["PATH=/bin", "A=1", "B=some text here"]}),
            ),
            (&["ENV B= "], json!({"Env": ["PATH=/bin", "A=1", "B="]})),
            (
                &["EXPOSE 80 53/udp 8000-8001"],
                json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}}),
            ),
            (&["HEALTHCHECK NONE"], json!({"Healthcheck": {"Test": ["NONE"]}})),
            (
                &["HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=3 CMD curl -f x"],
                json!({"Healthcheck": {"Test": ["CMD-SHELL", "curl -f x"], "Interval": 90_000_000_000_i64, "Timeout": 1_500_000_000, "Retries": 3}}),
            ),
            (
                &[r#"HEALTHCHECK CMD ["a", "b"]"#],
                json!({"Healthcheck": {"Test": ["CMD", "a", "b"]}}),
            ),
            (
                &["LABEL a=b \"c d\"='e f'", "LABEL g h i"],
                json!({"Labels": {"old": "1", "a": "b", "c d": "e f", "g": "h i"}}),
            ),
            (&["ONBUILD RUN echo $A"], json!({"OnBuild": ["RUN echo $A"]})),
            (&["STOPSIGNAL SIGTERM"], json!({"StopSignal": "SIGTERM"})),
            (&["STOPSIGNAL 9"], json!({"StopSignal": "9"})),
            (&["STOPSIGNAL rtmin+3"], json!({"StopSignal": "rtmin+3"})),
            (&["USER 1000:$A"], json!({"User": "1000:1"})),
            (&["VOLUME /a /b$A"], json!({"Volumes": {"/a": {}, "/b1": {}}})),
            (&[r#"VOLUME ["/a b"]"#], json!({"Volumes": {"/a b": {}}})),
            (&["WORKDIR app/../x"], json!({"WorkingDir": "/srv/x"})),
            (&["WORKDIR /a/"], json!({"WorkingDir": "/a/"})),
            (&["WORKDIR ../../.."], json!({"WorkingDir": "/"})),
            (
                &["# a remark", "", "USER a", "CMD a \\\nb"],
                json!({"User": "a", "Cmd": ["/bin/sh", "-c", "a b"]}),
            ),
        ];
        for (changes, expected) in table {
            assert_eq!(changed(changes), Ok(expected), "{changes:?}");
        }
    }

    #[test]
    fn a_faulty_change_is_named_and_changes_nothing() {
        let table = [
            ("foo bar", "foo is not a valid change command"),
            ("RUN x", "run is not a valid change command"),
            ("MAINTAINER x", "maintainer is not a valid change command"),
            ("ENV", "ENV: requires at least one argument"),
            ("ENV A", "ENV: must have two arguments"),
            ("ENV A=1 B", "ENV: can't find = in \"B\": must be of the form name=value"),
            ("ENV =1", "ENV: names can not be blank"),
            ("LABEL a='b", "LABEL: unexpected end of statement while looking for matching '"),
            (
                "CMD [1]",
                "CMD: when using JSON array syntax, arrays must be comprised of strings only",
            ),
            ("CMD --x a", "CMD: unknown flag: --x"),
            ("EXPOSE a", "EXPOSE: invalid containerPort: a"),
            ("EXPOSE 9-8", "EXPOSE: invalid containerPort: 9-8"),
            ("EXPOSE 70000", "EXPOSE: invalid containerPort: 70000"),
            ("EXPOSE 80/http", "EXPOSE: invalid proto: http"),
            ("HEALTHCHECK x", "HEALTHCHECK: unknown type \"X\" (try CMD)"),
            ("HEALTHCHECK CMD", "HEALTHCHECK: missing command after CMD"),
            ("HEALTHCHECK NONE x", "HEALTHCHECK: NONE takes no arguments"),
            ("HEALTHCHECK --interval=1 CMD x", "HEALTHCHECK: invalid duration: --interval=1"),
            ("HEALTHCHECK --interval=1us CMD x", "HEALTHCHECK: --interval cannot be less than 1ms"),
            ("HEALTHCHECK --retries=-1 CMD x", "HEALTHCHECK: invalid number: --retries=-1"),
            ("ONBUILD ONBUILD x", "ONBUILD: chaining via `ONBUILD ONBUILD` isn't allowed"),
            ("ONBUILD from x", "ONBUILD: FROM isn't allowed as an ONBUILD trigger"),
            ("STOPSIGNAL SIGNOPE", "STOPSIGNAL: invalid signal: SIGNOPE"),
            ("VOLUME [\"\"]", "VOLUME: a path can not be an empty string"),
        ];
        for (change, expected) in table {
            let mut config = before();
            let error = apply_changes(&["USER a", change], &mut config).expect_err(change);
            assert_eq!(error.to_string(), expected);
            assert_eq!(config, before(), "{change}");
        }
    }
}
