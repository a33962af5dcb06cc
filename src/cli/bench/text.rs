//! What was measured, as text for a terminal.

use crate::cli::bench::numbers::{ratio, shown};
use crate::cli::format::binary_size;
use crate::service::{FigureReport, MachineFacts, Measured, Report, Workload};

/// Columns of names and values.
const NAME: usize = 33;
const VALUE: usize = 12;
const RANGE: usize = 24;

/// Returns all workloads: their names, what they do and what they measure.
pub(crate) fn workloads(workloads: &[&Workload]) -> String {
    let mut text = String::new();
    for workload in workloads {
        text.push_str(&format!("{}: {}\n", workload.id, workload.title));
        for line in wrapped(workload.what, 92) {
            text.push_str(&format!("    {line}\n"));
        }
        let figures: Vec<_> = workload.figures.iter().map(|figure| figure.id).collect();
        text.push_str(&format!("    figures: {}\n", figures.join(", ")));
    }
    text
}

/// Returns a report: the machine, the drivers, and for each figure a line for each driver.
pub(crate) fn report(report: &Report) -> String {
    let mut text = format!("{}\n{}\n", machine(&report.machine), how(report));
    for driver in &report.drivers {
        let mut line = vec![driver.command.as_str()];
        line.extend(
            [&*driver.options, &*driver.version].into_iter().filter(|word| !word.is_empty()),
        );
        text.push_str(&format!("  {:NAME$}{}\n", driver.name, line.join(", ")));
    }
    for note in &report.notes {
        text.push_str(&format!("  {note}\n"));
    }
    for workload in &report.workloads {
        for figure in &workload.figures {
            text.push_str(&block(figure, &report.parameters.base));
        }
    }
    text
}

/// Returns what a machine is.
pub(crate) fn machine(machine: &MachineFacts) -> String {
    let MachineFacts { kernel, architecture, processors, processor, file_system, .. } = machine;
    let memory = binary_size(machine.memory_bytes);
    let who = if machine.is_root { "root" } else { "an ordinary user" };
    format!(
        "Linux {kernel} {architecture}, {processors} × {processor}, {memory}, {file_system}, as {who}"
    )
}

/// Returns how it was measured.
pub(crate) fn how(report: &Report) -> String {
    let parameters = &report.parameters;
    let runs = if parameters.runs == 1 { "run" } else { "runs" };
    format!(
        "size {}, {} {runs} of each, the tree is {}; ratios to {}",
        parameters.size.name, parameters.runs, parameters.tree, parameters.base
    )
}

fn block(figure: &FigureReport, base: &str) -> String {
    let mut text = format!(
        "\n{:width$}{:>VALUE$}  {:RANGE$}by {base}\n",
        figure.title,
        "median",
        "range",
        width = NAME + 2
    );
    for result in &figure.results {
        text.push_str(&line(figure, result));
    }
    text
}

fn line(figure: &FigureReport, result: &Measured) -> String {
    let name = &result.driver;
    let (Some(median), Some(min), Some(max)) = (result.median, result.min, result.max) else {
        let reason = result.not_run.as_deref().unwrap_or("no reason is known");
        return format!("  {name:NAME$}not run: {reason}\n");
    };
    let value = shown(median, figure.unit);
    let range = format!("{} – {}", shown(min, figure.unit), shown(max, figure.unit));
    let ratio = result.ratio.map_or_else(|| "-".to_owned(), ratio);
    format!("  {name:NAME$}{value:>VALUE$}  {range:RANGE$}{ratio}\n")
}

/// Breaks a text into lines of at most so many letters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() && line.chars().count() + word.chars().count() >= width {
            lines.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::example::example;

    #[test]
    fn a_report_has_a_line_for_each_driver() {
        let text = report(&example());
        let expected = "\
Linux 6.18.0 x86_64, 2 × A <fast> one, 16GiB, ext4, as root
size 0.001, 3 runs of each, the tree is made; ratios to overlay
  strata                           strata mount, volatile, strata 0.1.0
  overlay                          mount -t overlay, Linux 6.18.0
  gone                             gone
  a note

walk, cold                               median  range                   by overlay
  strata                                10.0 ms  9.00 ms – 12.0 ms       0.50
  overlay                               20.0 ms  20.0 ms – 20.0 ms       1.00
  gone                             not run: no program \"gone\"

big file                                 median  range                   by overlay
  strata                              1.5 GB/s  1.5 GB/s – 1.5 GB/s     -
  overlay                          not run: it took longer than 1 s
  gone                             not run: no program \"gone\"
";
        let without_spaces = |text: &str| {
            let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            text.lines().map(line).collect::<Vec<_>>()
        };
        assert_eq!(without_spaces(&text), without_spaces(expected));
        let at = |line: &str| line.find("0.50").or_else(|| line.find("1.00"));
        let places: Vec<_> = text.lines().filter_map(at).collect();
        assert!(
            places.len() == 2 && places[0] == places[1],
            "columns are below each other: {text}"
        );
    }
}
