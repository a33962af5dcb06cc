//! Records of commands: what was typed, and what docker and strata said.
//!
//! A record is text for people. `$` is a command for the shell; below it `1` begins a line of standard
//! output, `2` one of standard error, `=` the exit code where it is not 0. A line without its line
//! break begins with `1\` or `2\`. `!` names the deviation that lets strata differ; what it says then
//! stands below `strata:`. Other lines before a command are about it.

use std::fmt::Write;

use crate::common::Output;

/// A command and what came of it.
#[derive(Debug)]
pub(crate) struct Step {
    /// What stands before it in the file.
    before: String,
    pub(crate) command: String,
    /// The name of the deviation that lets strata differ.
    pub(crate) deviation: Option<String>,
    pub(crate) docker: Output,
    /// What strata says where it differs.
    pub(crate) strata: Option<Output>,
}

impl Step {
    /// Returns what strata must say.
    pub(crate) fn expected(&self) -> &Output {
        self.strata.as_ref().unwrap_or(&self.docker)
    }
}

/// Reads the steps of a record.
pub(crate) fn read(text: &str) -> Vec<Step> {
    let (mut steps, mut before): (Vec<Step>, _) = (Vec::new(), String::new());
    for line in text.lines() {
        let Some((mark, rest)) = marked(line) else {
            before.push_str(line);
            before.push('\n');
            continue;
        };
        if mark == "$" {
            let (command, before) = (rest.to_owned(), std::mem::take(&mut before));
            let docker = Output::default();
            steps.push(Step { before, command, deviation: None, docker, strata: None });
            continue;
        }
        let step = steps.last_mut().unwrap_or_else(|| panic!("{line:?} is about no command"));
        match mark {
            "!" => step.deviation = Some(rest.to_owned()),
            "strata:" => step.strata = Some(Output::default()),
            _ => add(step.strata.as_mut().unwrap_or(&mut step.docker), mark, rest),
        }
    }
    steps
}

/// Returns the mark that a line begins with, and what follows.
fn marked(line: &str) -> Option<(&str, &str)> {
    let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
    let known = ["$", "!", "strata:", "1", "1\\", "2", "2\\", "="];
    known.contains(&mark).then_some((mark, rest))
}

fn add(output: &mut Output, mark: &str, rest: &str) {
    if mark == "=" {
        output.code = rest.parse().unwrap_or_else(|_| panic!("{rest:?} is no exit code"));
        return;
    }
    let stream = if mark.starts_with('1') { &mut output.stdout } else { &mut output.stderr };
    stream.push_str(rest);
    if !mark.ends_with('\\') {
        stream.push('\n');
    }
}

/// Returns the text of a record.
pub(crate) fn write(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        text.push_str(&step.before);
        writeln!(text, "$ {}", step.command).unwrap();
        if let Some(deviation) = &step.deviation {
            writeln!(text, "! {deviation}").unwrap();
        }
        text.push_str(&shown(&step.docker));
        if let Some(strata) = &step.strata {
            text.push_str("strata:\n");
            text.push_str(&shown(strata));
        }
    }
    text
}

/// Returns what a command said, as a record has it.
pub(crate) fn shown(output: &Output) -> String {
    let mut text = String::new();
    for (mark, stream) in [("1", &output.stdout), ("2", &output.stderr)] {
        for line in stream.split_inclusive('\n') {
            let whole = line.strip_suffix('\n');
            let mark = format!("{mark}{}", if whole.is_some() { "" } else { "\\" });
            let line = format!("{mark} {}", whole.unwrap_or(line));
            // An empty line is its mark alone.
            text.push_str(if whole == Some("") { &mark } else { &line });
            text.push('\n');
        }
    }
    if output.code != 0 {
        writeln!(text, "= {}", output.code).unwrap();
    }
    text
}

#[test]
fn a_record_is_written_as_it_was_read() {
    let text = "# About it.\n\n$ docker tag a\n2 two words\n2\n2\\ no line break\n= 1\n$ docker ps\n! \
                slug\n1 A  B \n1\nstrata:\n1 other\n";
    let steps = read(text);
    assert_eq!(write(&steps), text);
    assert_eq!(steps[0].expected().stderr, "two words\n\nno line break");
    assert_eq!((steps[0].docker.code, steps[1].expected().stdout.as_str()), (1, "other\n"));
}
