//! What differs from one run to the next, replaced by words that stay.
//!
//! Digests and ids that are known before, because the images are made by the test, stay as they are.

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::common::Output;

static IDS: LazyLock<Regex> = LazyLock::new(|| regex(r"\b([0-9a-f]{64}|[0-9a-f]{12})\b"));
static AGES: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(Less than a second|About an? (minute|hour)|\d+ (second|minute|hour|day|week|month|year)s?) ago",
    )
});
static TIMES: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"\b20[2-9]\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d| [+-]\d{4} [A-Z]+)?")
});
/// The name of a volume, cut.
static VOLUMES: LazyLock<Regex> = LazyLock::new(|| regex("[0-9a-f]{14}…"));
/// The gaps between the columns of a table.
static GAPS: LazyLock<Regex> = LazyLock::new(|| regex(" {3,}"));
/// How an error begins: docker says which of its halves has found it, strata has only one.
static PREFIX: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?m)^(Error response from daemon: |Error: |error: )"));
/// How docker points to its help: `See` and, by mistake, `SRun` stand for the same.
static HELP: LazyLock<Regex> = LazyLock::new(|| regex(r"(?m)^(See|SRun) '"));
/// What docker logs beside its error, if its connections end in that order.
static LOG: LazyLock<Regex> = LazyLock::new(|| regex(r#"(?m)^time="[^"]*" level=.*\n"#));
/// Names of the daemon's own: of its socket, of its temporary files.
static DAEMON: LazyLock<Regex> =
    LazyLock::new(|| regex(r"http://%2F\S*/v[0-9.]+|/\S*/docker-import-[0-9]+"));
static NAME: LazyLock<Regex> = LazyLock::new(|| regex(r"\bstrata\b"));

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a regular expression")
}

/// What is replaced.
#[derive(Debug)]
pub(crate) struct Normal {
    /// Digests that stay, as 64 digits.
    pub(crate) known: HashSet<String>,
    /// Texts of this run, and what stands for them.
    pub(crate) texts: Vec<(String, &'static str)>,
}

impl Normal {
    /// Returns what a command has said, in words that stay.
    pub(crate) fn of(&self, output: Output) -> Output {
        let mut ids = Vec::new();
        let stdout = self.text(&output.stdout, &mut ids);
        let stderr = LOG.replace_all(&output.stderr, "");
        let stderr = DAEMON.replace_all(&stderr, "<DAEMON>");
        let stderr = PREFIX.replace_all(&stderr, "");
        let stderr = self.text(&HELP.replace_all(&stderr, "Run '"), &mut ids);
        Output { stdout, stderr, code: output.code }
    }

    fn text(&self, text: &str, ids: &mut Vec<String>) -> String {
        let mut text = text.to_owned();
        for (found, shown) in &self.texts {
            text = text.replace(found, shown);
        }
        let text = NAME.replace_all(&text, "docker");
        let text = VOLUMES.replace_all(&text, "<VOLUME>");
        let text = TIMES.replace_all(&text, "<TIME>");
        let aged = AGES.replace_all(&text, "<AGE>");
        let named = IDS.replace_all(&aged, |found: &Captures| self.id(&found[0], ids));
        // A column is as wide as the age in it was.
        if aged == text { named.into_owned() } else { GAPS.replace_all(&named, "   ").into_owned() }
    }

    /// Returns what stands for an id: a number, by the first that is seen.
    fn id(&self, id: &str, ids: &mut Vec<String>) -> String {
        if self.known.iter().any(|known| known.starts_with(id)) {
            return id.to_owned();
        }
        let same = |known: &String| known.starts_with(&id[..12]);
        let number = ids.iter().position(same).unwrap_or_else(|| {
            ids.push(id.to_owned());
            ids.len() - 1
        });
        let letters = if id.len() == 64 { "ID" } else { "id" };
        format!("<{letters}{}>", number + 1)
    }
}

#[test]
fn what_differs_from_run_to_run_is_replaced() {
    let known = "0123456789ab".to_owned() + &"0".repeat(52);
    let normal =
        Normal { known: HashSet::from([known]), texts: vec![("/tmp/x7".to_owned(), "<DIR>")] };
    let long = "fedcba987654".to_owned() + &"1".repeat(52);
    for (text, expected) in [
        ("sha256:fedcba987654 0123456789ab", "sha256:<id1> 0123456789ab"),
        (&format!("aaaaaaaaaaaa {long} fedcba987654"), "<id1> <ID2> <id2>"),
        ("x    3 weeks ago   y", "x   <AGE>   y"),
        ("x    y", "x    y"),
        ("About an hour ago", "<AGE>"),
        ("0123456789abcd…", "<VOLUME>"),
        ("at 2026-11-21 07:30:01 +0000 UTC.", "at <TIME>."),
        ("2026-11-21T07:30:01.25Z 2001-01-01T00:00:00Z", "<TIME> 2001-01-01T00:00:00Z"),
        ("Usage:  strata tag /tmp/x7/a", "Usage:  docker tag <DIR>/a"),
    ] {
        let output = Output { stdout: text.to_owned(), ..Output::default() };
        assert_eq!(normal.of(output).stdout, expected);
    }
    let stderr = "Error response from daemon: no\nError: yes\ntime=\"now\" level=error msg=x\nSee 'x'\n\
                  Post \"http://%2Fx%2Fy.sock/v1.41/x\"\n/x/tmp/docker-import-12/y\n";
    let output = normal.of(Output { stderr: stderr.to_owned(), ..Output::default() });
    assert_eq!(output.stderr, "no\nyes\nRun 'x'\nPost \"<DAEMON>/x\"\n<DAEMON>/y\n");
}
