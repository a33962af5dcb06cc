//! The session that `README.md` shows: it is run, and must show the same.
//!
//! `scripts/record-readme` runs it too, and puts what it showed into the page.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use regex::Regex;

use crate::cli::docker::normal::Normal;
use crate::common::{Output, Registry, Session, Who, plain_debian, run};

/// How the page calls the registry.
const HOST: &str = "127.0.0.1:5000";

/// Sizes, and what `ls -l` says of size and time: they are those of one Debian, on one day.
static FIGURES: LazyLock<Regex> = LazyLock::new(|| {
    let time = r" \d+ (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+ +[0-9:]+ ";
    let size = r"\b\d+(\.\d+)?(B|kB|MB|GB)\b|size: \d+";
    Regex::new(&format!("{time}|{size}")).expect("a regular expression")
});
static GAPS: LazyLock<Regex> = LazyLock::new(|| Regex::new(" {2,}").expect("a regular expression"));

/// A command of the session, and what it shows.
#[derive(Debug)]
struct Step {
    command: String,
    said: String,
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

/// Returns the page before, in and after the session.
fn parts(page: &str) -> (&str, &str, &str) {
    let (before, rest) = page.split_once("```console\n").expect("the page has a session");
    let (session, after) = rest.split_once("```\n").expect("the session has an end");
    (before, session, after)
}

fn steps(session: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in session.split_inclusive('\n') {
        match line.strip_prefix("$ ") {
            Some(command) => {
                steps.push(Step { command: command.trim_end().to_owned(), said: String::new() });
            }
            None => steps.last_mut().expect("a command comes first").said.push_str(line),
        }
    }
    steps
}

/// Runs the commands as an ordinary user, in a new store.
fn run_all(steps: &[Step]) -> Vec<Step> {
    let registry = Registry::start();
    let layout = format!("oci:{}:latest", plain_debian().display());
    registry.fill(&layout, "debian:12", &[]);
    let session = Session::new(Who::User);
    session.dir("root");
    let again = |step: &Step| {
        let output = run(&mut shell(&session, &step.command.replace(HOST, registry.host())));
        assert_eq!(output.code, 0, "{}: {}", step.command, output.stdout);
        let said = output.stdout.replace(registry.host(), HOST);
        // A table ends its lines with spaces, which a page does without.
        let said = said.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        Step { command: step.command.clone(), said }
    };
    steps.iter().map(again).collect()
}

/// Returns a shell that finds the program, and shows errors where a terminal does.
fn shell(session: &Session, text: &str) -> Command {
    let program = session.command::<&str>(&[]);
    let folder = Path::new(program.get_program()).parent().expect("it is in a folder");
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec 2>&1; {text}")]).env_clear().env("PATH", path);
    for (name, value) in program.get_envs().filter(|(name, _)| *name != "PATH") {
        command.env(name, value.expect("it is set"));
    }
    command.current_dir(session.path("")).stdin(std::process::Stdio::null());
    session.who.run(&mut command);
    command
}

/// Returns what a command showed, in words that stay.
fn normal(step: &Step) -> Vec<String> {
    let stdout = GAPS.replace_all(&step.said, "   ").into_owned();
    let normal = Normal { known: HashSet::new(), texts: Vec::new() };
    let said = normal.of(Output { stdout, ..Output::default() }).stdout;
    let said = FIGURES.replace_all(&said, " <FIGURES> ");
    let mut lines: Vec<_> =
        said.lines().map(|line| GAPS.replace_all(line, " ").into_owned()).collect();
    // Layers are pushed at the same time.
    if step.command.starts_with("strata push") {
        lines.sort();
    }
    lines
}

/// Returns where what was shown differs from what the page says.
fn differences(written: &[Step], shown: &[Step]) -> Vec<String> {
    let pairs =
        written.iter().zip(shown).filter(|(written, shown)| normal(written) != normal(shown));
    let told = |(written, shown): (&Step, &Step)| {
        format!("$ {}\nthe page:\n{}now:\n{}", written.command, written.said, shown.said)
    };
    pairs.map(told).collect()
}

#[test]
fn the_session_of_the_page_is_true() {
    let page = fs::read_to_string(page()).unwrap();
    let written = steps(parts(&page).1);
    assert!(written.len() >= 10);
    let differences = differences(&written, &run_all(&written));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
#[ignore = "scripts/record-readme runs it: it writes the page"]
fn record_the_session() {
    let text = fs::read_to_string(page()).unwrap();
    let (before, session, after) = parts(&text);
    let written = steps(session);
    let shown = run_all(&written);
    // What differs in figures alone stays as it is.
    if differences(&written, &shown).is_empty() {
        return;
    }
    let shown: String =
        shown.iter().map(|step| format!("$ {}\n{}", step.command, step.said)).collect();
    fs::write(page(), format!("{before}```console\n{shown}```\n{after}")).unwrap();
}

#[test]
fn what_differs_by_figures_alone_is_the_same() {
    let step = |said: &str| Step { command: "ls -l".to_owned(), said: said.to_owned() };
    let old =
        "-rwxr-xr-x 1 root root   48536 Sep 20  2022 env\n<missing>   3 days ago   x   164MB\n";
    let new = "-rwxr-xr-x 1 root root 9 Nov 21 06:14 env\n<missing>      2 hours ago   x   70kB\n";
    assert_eq!(normal(&step(old)), normal(&step(new)));
    assert_ne!(normal(&step(old)), normal(&step(&old.replace("rwx", "rws"))));
}
