//! Charts of a report, as SVG that stands in a page and takes its colours from there.

use crate::cli::bench::numbers::{meaning, ratio, shown};
use crate::service::{Better, FigureReport, Group, Measured, Report};

/// Places of the chart of all figures.
const LABELS: f64 = 250.0;
const WIDTH: f64 = 900.0;
const RIGHT: f64 = 20.0;
const ROW: f64 = 23.0;
const HEADING: f64 = 30.0;
/// Marks of drivers stand so far below each other, so that none hides another one.
const STAGGER: f64 = 1.8;
const TOP: f64 = 44.0;

/// Returns how many times as good a result is as the base; none if it was not compared.
fn goodness(figure: &FigureReport, result: &Measured) -> Option<f64> {
    let ratio = result.ratio.filter(|ratio| *ratio > 0.0)?;
    Some(match figure.better {
        Better::Lower => 1.0 / ratio,
        Better::Higher => ratio,
    })
}

/// The groups of workloads, in their order.
pub(crate) const GROUPS: [Group; 5] =
    [Group::Names, Group::Content, Group::Changes, Group::Programs, Group::Mounts];

/// Returns what a group is called.
pub(crate) const fn group_title(group: Group) -> &'static str {
    match group {
        Group::Names => "Names and attributes",
        Group::Content => "Content",
        Group::Changes => "Changes",
        Group::Programs => "Programs",
        Group::Mounts => "Mounts and servers",
    }
}

/// Returns the chart of all figures: a line for each, and on it a mark for each driver at how many times
/// as good as the base it is.
pub(crate) fn glance(report: &Report) -> String {
    let figures_of = |group| {
        let of_it = report.workloads.iter().filter(move |workload| workload.group == group);
        let figures = of_it.flat_map(|workload| &workload.figures);
        figures.filter(|figure| is_compared(figure, report)).collect::<Vec<_>>()
    };
    let groups = GROUPS.map(|group| (group, figures_of(group)));
    let groups: Vec<_> = groups.into_iter().filter(|(_, figures)| !figures.is_empty()).collect();
    if groups.is_empty() {
        return String::new();
    }
    let all: Vec<_> = groups.iter().flat_map(|(_, figures)| figures).copied().collect();
    let scale = Scale::of(&all);
    let height = TOP + ROW * all.len() as f64 + HEADING * groups.len() as f64 + 8.0;
    let mut svg = format!(
        "<svg class=\"glance\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"How many times as \
         good as {} each driver is, for each figure\">\n",
        escaped(&report.parameters.base)
    );
    svg.push_str(&scale.grid(height));
    let mut y = TOP;
    for (group, figures) in &groups {
        svg.push_str(&format!(
            "<text class=\"heading\" x=\"12\" y=\"{:.1}\">{}</text>\n",
            y + HEADING - 6.0,
            group_title(*group)
        ));
        y += HEADING;
        for figure in figures {
            svg.push_str(&lane(report, figure, &scale, y + ROW / 2.0));
            y += ROW;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Returns the line of a figure with its name and its marks.
fn lane(report: &Report, figure: &FigureReport, scale: &Scale, y: f64) -> String {
    format!(
        "<text class=\"label\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <line class=\"lane\" x1=\"{LABELS}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n{}",
        LABELS - 12.0,
        y + 4.0,
        escaped(&figure.title),
        WIDTH - RIGHT,
        marks(report, figure, scale, y)
    )
}

/// Tells whether a driver was held against another one.
fn is_compared(figure: &FigureReport, report: &Report) -> bool {
    let others = figure.results.iter().filter(|result| result.driver != report.parameters.base);
    others.into_iter().any(|result| goodness(figure, result).is_some())
}

/// Returns a mark for each driver but the base, the first one on top.
fn marks(report: &Report, figure: &FigureReport, scale: &Scale, y: f64) -> String {
    let mut svg = String::new();
    for (at, result) in figure.results.iter().enumerate().rev() {
        let Some(good) = goodness(figure, result) else { continue };
        if result.driver == report.parameters.base {
            continue;
        }
        let value = result.median.map(|median| shown(median, figure.unit)).unwrap_or_default();
        let means = result.ratio.map(|ratio| meaning(ratio, figure.unit, &report.parameters.base));
        svg.push_str(&format!(
            "<g class=\"{}\" transform=\"translate({:.1} {:.1})\"><title>{}, {}: {value}, {}</title>{}</g>\n",
            colour(at),
            scale.x(good),
            y + STAGGER * (at as f64 - (figure.results.len() - 1) as f64 / 2.0),
            escaped(&figure.title),
            escaped(&result.driver),
            escaped(&means.unwrap_or_default()),
            shape(at)
        ));
    }
    svg
}

/// Returns the mark of a driver by its place among them: they differ in shape as well as in colour.
pub(crate) fn shape(driver: usize) -> &'static str {
    match driver % 6 {
        0 => "<circle r=\"6.5\"/>",
        1 => "<rect x=\"-5.5\" y=\"-5.5\" width=\"11\" height=\"11\" rx=\"1\"/>",
        2 => "<path d=\"M0-7.5 7.5 0 0 7.5-7.5 0z\"/>",
        3 => "<path d=\"M0-7 7 5.5H-7z\"/>",
        4 => "<path d=\"M0 7 7-5.5H-7z\"/>",
        _ => {
            "<path d=\"M-6.5-3.5-3.5-6.5 0-3 3.5-6.5 6.5-3.5 3 0 6.5 3.5 3.5 6.5 0 3-3.5 6.5-6.5 3.5-3 0z\"/>"
        }
    }
}

/// Returns the class that gives a driver its colour, by its place among them.
pub(crate) const fn colour(driver: usize) -> &'static str {
    const CLASSES: [&str; 8] = ["d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7"];
    CLASSES[driver % CLASSES.len()]
}

/// Where how many times as good stands: by powers of ten, the same in both directions.
struct Scale {
    /// The logarithm at the left end and at the right end.
    from: f64,
    to: f64,
}

impl Scale {
    /// Returns a scale that shows all of it, but nothing further away than a hundred times.
    fn of(figures: &[&FigureReport]) -> Self {
        const FURTHEST: f64 = 2.08;
        let all = figures.iter().flat_map(|figure| {
            figure.results.iter().filter_map(|result| goodness(figure, result)).map(f64::log10)
        });
        let (mut from, mut to) = (-0.35_f64, 0.35_f64);
        for log in all {
            (from, to) = (from.min(log - 0.08), to.max(log + 0.08));
        }
        Self { from: from.max(-FURTHEST), to: to.min(FURTHEST) }
    }

    fn x(&self, good: f64) -> f64 {
        let log = good.log10().clamp(self.from, self.to);
        let part = (log - self.from) / (self.to - self.from);
        LABELS + part * (WIDTH - RIGHT - LABELS)
    }

    /// Returns lines at round numbers, with what they mean above.
    fn grid(&self, height: f64) -> String {
        const STEPS: [f64; 5] = [1.0, 3.0, 10.0, 30.0, 100.0];
        let middle = self.x(1.0);
        let mut svg = format!(
            "<text class=\"side\" x=\"{:.1}\" y=\"16\" text-anchor=\"end\">← worse</text>\
             <text class=\"side\" x=\"{:.1}\" y=\"16\">better →</text>\n",
            middle - 14.0,
            middle + 14.0
        );
        for step in STEPS {
            svg.push_str(&self.line(step, &format!("{step}×"), height));
            if step > 1.0 {
                svg.push_str(&self.line(1.0 / step, &format!("1/{step}"), height));
            }
        }
        svg
    }

    fn line(&self, good: f64, text: &str, height: f64) -> String {
        if !(self.from..=self.to).contains(&good.log10()) {
            return String::new();
        }
        let (x, class) = (self.x(good), if good == 1.0 { "grid one" } else { "grid" });
        format!(
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{height:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>\n",
            TOP - 2.0,
            TOP - 8.0
        )
    }
}

/// Returns a figure: for each driver a bar to its median, a line over its range, a tick for each run.
pub(crate) fn bars(report: &Report, figure: &FigureReport) -> String {
    let largest = figure.results.iter().filter_map(|result| result.max).fold(0.0, f64::max);
    let rows: Vec<_> = figure
        .results
        .iter()
        .enumerate()
        .map(|(at, result)| bar(report, figure, at, result, largest))
        .collect();
    format!("<div class=\"bars\">\n{}</div>\n", rows.concat())
}

fn bar(
    report: &Report,
    figure: &FigureReport,
    at: usize,
    result: &Measured,
    largest: f64,
) -> String {
    let (name, class) = (escaped(&result.driver), colour(at));
    let (Some(median), Some(min), Some(max)) = (result.median, result.min, result.max) else {
        let reason = escaped(result.not_run.as_deref().unwrap_or("no reason is known"));
        return format!(
            "<div class=\"row {class}\"><span class=\"name\">{name}</span>\
             <span class=\"gone\">not run: {reason}</span></div>\n"
        );
    };
    let place = |value: f64| if largest > 0.0 { value / largest * 100.0 } else { 0.0 };
    let ticks: String = result
        .values
        .iter()
        .map(|value| {
            let x = place(*value);
            format!("<line class=\"tick\" x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"5\" y2=\"15\"/>")
        })
        .collect();
    let value = shown(median, figure.unit);
    let ends = format!("{} – {}", shown(min, figure.unit), shown(max, figure.unit));
    let by_base =
        result.ratio.map_or_else(|| "–".to_owned(), |number| format!("{}×", ratio(number)));
    let means = result.ratio.map(|ratio| meaning(ratio, figure.unit, &report.parameters.base));
    format!(
        "<div class=\"row {class}\"><span class=\"name\">{name}</span>\
         <svg class=\"bar\" viewBox=\"0 0 100 20\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{name}: {value}\"><title>{name}: {value}, {ends} in {} runs</title>\
         <rect class=\"median\" x=\"0\" y=\"3\" width=\"{:.2}\" height=\"14\"/>\
         <line class=\"range\" x1=\"{:.2}\" x2=\"{:.2}\" y1=\"10\" y2=\"10\"/>{ticks}</svg>\
         <span class=\"value\">{value}</span><span class=\"ratio\" title=\"{}\">{by_base}</span></div>\n",
        result.values.len(),
        place(median),
        place(min),
        place(max),
        escaped(&means.unwrap_or_default())
    )
}

/// Returns a text as it stands in a page.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}
