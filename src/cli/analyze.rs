//! `strata analyze`.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::{parse_size, size};
use crate::cli::listing::shown;
use crate::cli::output::{line, print, table_text};
use crate::cli::rows::is_plain_table;
use crate::cli::template::print_document;
use crate::service::{Analysis, WastedPath};

/// Measure what the layers of an image waste on files that are stored again or removed
///
/// A path is wasted when several layers write or remove it. With --ci the code is 1 if a rule is
/// broken.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata analyze my/app:1\n  strata analyze --ci \
                        --highest-wasted-bytes 20MB my/app:1")]
pub(crate) struct Arguments {
    /// Hold the image against rules
    #[arg(long)]
    ci: bool,

    /// Rule: the lowest efficiency that is good, from 0 to 1, or 'disabled'
    #[arg(long, requires = "ci", value_name = "RATIO", default_value = "0.9", value_parser = ratio)]
    lowest_efficiency: Limit<f64>,

    /// Rule: the most bytes that may be wasted, as 20MB, or 'disabled'
    #[arg(long, requires = "ci", value_name = "SIZE", default_value = "disabled",
          value_parser = bytes)]
    highest_wasted_bytes: Limit<u64>,

    /// Rule: the most that may be wasted of what all layers but the lowest take, from 0 to 1, or
    /// 'disabled'
    #[arg(long, requires = "ci", value_name = "RATIO", default_value = "0.1", value_parser = ratio)]
    highest_user_wasted_percent: Limit<f64>,

    /// List all wasted paths, not only the worst
    #[arg(long)]
    no_trunc: bool,

    /// How to print: table, json, or a template of Go
    #[arg(long)]
    format: Option<String>,

    /// The image
    image: String,
}

/// How many paths are listed.
const WORST: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit<T> {
    Disabled,
    At(T),
}

/// A rule and what came of it; none for one that is disabled.
struct Verdict {
    rule: &'static str,
    passed: Option<bool>,
    told: String,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let analysis = context.strata()?.analyze(&arguments.image)?;
    let verdicts = if arguments.ci { verdicts(arguments, &analysis) } else { Vec::new() };
    match arguments.format.as_deref() {
        Some(format) if !is_plain_table(Some(format)) => {
            print_document(document(&arguments.image, &analysis, &verdicts), format)?;
        }
        _ => {
            let most = if arguments.no_trunc { usize::MAX } else { WORST };
            print(&text(&arguments.image, &analysis, most))?;
            if arguments.ci {
                line("")?;
                verdicts.iter().try_for_each(|verdict| line(&verdict.line()))?;
            }
        }
    }
    match verdicts.iter().any(|verdict| verdict.passed == Some(false)) {
        true => Err(Failure::Told(1)),
        false => Ok(()),
    }
}

fn text(image: &str, analysis: &Analysis, most: usize) -> Vec<u8> {
    let percent = |ratio: f64| format!("{:.2}%", ratio * 100.0);
    let mut head = String::new();
    for (title, value) in [
        ("IMAGE", image.to_owned()),
        ("LAYERS", analysis.layers.to_string()),
        ("SIZE", size(analysis.bytes)),
        ("EFFICIENCY", percent(analysis.efficiency)),
        ("WASTED", size(analysis.wasted_bytes)),
        ("USER WASTED", percent(analysis.user_wasted)),
    ] {
        head.push_str(&format!("{title}\t{value}\n"));
    }
    let mut text = table_text(head.as_bytes());
    if analysis.wasted.is_empty() {
        return text;
    }
    let mut rows = b"COUNT\tBYTES\tPATH\n".to_vec();
    for WastedPath { path, layers, bytes } in analysis.wasted.iter().take(most) {
        rows.extend_from_slice(format!("{layers}\t{}\t", size(*bytes)).as_bytes());
        rows.extend_from_slice(&shown(path));
        rows.push(b'\n');
    }
    text.push(b'\n');
    text.extend(table_text(&rows));
    let left = analysis.wasted.len().saturating_sub(most);
    if left > 0 {
        text.extend(format!("{left} more; see them with --no-trunc\n").into_bytes());
    }
    text
}

fn document(image: &str, analysis: &Analysis, verdicts: &[Verdict]) -> Value {
    let path = |wasted: &WastedPath| {
        let path = String::from_utf8_lossy(&wasted.path);
        json!({"Count": wasted.layers, "Bytes": wasted.bytes, "Path": path})
    };
    let rule = |verdict: &Verdict| json!({"Rule": verdict.rule, "Status": verdict.status(), "Message": verdict.told});
    json!({
        "Image": image,
        "ID": analysis.image.to_string(),
        "Layers": analysis.layers,
        "Size": analysis.bytes,
        "UserSize": analysis.user_bytes,
        "Efficiency": analysis.efficiency,
        "WastedBytes": analysis.wasted_bytes,
        "UserWastedPercent": analysis.user_wasted,
        "Wasted": analysis.wasted.iter().map(path).collect::<Vec<_>>(),
        "Rules": verdicts.iter().map(rule).collect::<Vec<_>>(),
    })
}

impl Verdict {
    fn status(&self) -> &'static str {
        match self.passed {
            Some(true) => "PASS",
            Some(false) => "FAIL",
            None => "SKIP",
        }
    }

    fn line(&self) -> String {
        format!("{}  {}: {}", self.status(), self.rule, self.told)
    }
}

fn verdicts(arguments: &Arguments, analysis: &Analysis) -> Vec<Verdict> {
    let (efficiency, wasted) = (analysis.efficiency, analysis.wasted_bytes);
    let user_wasted = analysis.user_wasted;
    vec![
        arguments.lowest_efficiency.hold("lowest-efficiency", |least| {
            (efficiency >= least, format!("{efficiency:.4}, at least {least}"))
        }),
        arguments.highest_wasted_bytes.hold("highest-wasted-bytes", |most| {
            (wasted <= most, format!("{wasted} bytes, at most {most}"))
        }),
        arguments.highest_user_wasted_percent.hold("highest-user-wasted-percent", |most| {
            (user_wasted <= most, format!("{user_wasted:.4}, at most {most}"))
        }),
    ]
}

impl<T: Copy> Limit<T> {
    /// Returns what comes of a rule with this limit: `check` says whether it holds, and why.
    fn hold(self, rule: &'static str, check: impl Fn(T) -> (bool, String)) -> Verdict {
        match self {
            Self::Disabled => Verdict { rule, passed: None, told: "disabled".to_owned() },
            Self::At(limit) => {
                let (passed, told) = check(limit);
                Verdict { rule, passed: Some(passed), told }
            }
        }
    }
}

fn ratio(text: &str) -> Result<Limit<f64>, String> {
    limit(text, |text| match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("{text:?} is not from 0 to 1, nor 'disabled'")),
    })
}

fn bytes(text: &str) -> Result<Limit<u64>, String> {
    limit(text, parse_size)
}

/// Reads a limit; the words that disable a rule are dive's.
fn limit<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Limit<T>, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" | "disabled" | "off" | "false" => Ok(Limit::Disabled),
        _ => read(text).map(Limit::At),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_or_nothing() {
        for (text, expected) in [
            ("0.9", Ok(Limit::At(0.9))),
            ("1", Ok(Limit::At(1.0))),
            ("Off", Ok(Limit::Disabled)),
            ("", Ok(Limit::Disabled)),
        ] {
            assert_eq!(ratio(text), expected, "{text:?}");
        }
        for text in ["90", "-0.1", "NaN", "much"] {
            assert!(ratio(text).unwrap_err().contains("from 0 to 1"), "{text:?}");
        }
        assert_eq!(bytes("20MB"), Ok(Limit::At(20_000_000)));
        assert_eq!(bytes("disabled"), Ok(Limit::Disabled));
        assert!(bytes("20XB").unwrap_err().contains("20XB"));
    }

    #[test]
    fn a_rule_holds_at_its_limit() {
        let check = |limit: Limit<u64>| limit.hold("rule", |most| (5 <= most, "5".to_owned()));
        assert_eq!(check(Limit::At(5)).line(), "PASS  rule: 5");
        assert_eq!(check(Limit::At(4)).line(), "FAIL  rule: 5");
        assert_eq!(check(Limit::Disabled).line(), "SKIP  rule: disabled");
    }
}
