//! What was measured, as one page: charts, every figure, and how it came about.
//!
//! The page asks for nothing else: style, script and charts are in it.

use crate::cli::bench::charts::{GROUPS, bars, colour, escaped, glance, group_title, shape};
use crate::cli::bench::numbers::{ratio, shown};
use crate::cli::bench::text::{how, machine};
use crate::service::{Better, FigureReport, Report, WorkloadReport};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Returns the page.
pub(crate) fn page(report: &Report) -> String {
    let parts = [
        head(report),
        legend(report),
        at_a_glance(report),
        workloads(report),
        table(report),
        method(report),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>strata bench: {}</title>\n<style>\n{STYLE}</style>\n<script>\n{SCRIPT}</script>\n\
         </head>\n<body>\n{}</body>\n</html>\n",
        escaped(&report.parameters.tree),
        parts.concat()
    )
}

fn head(report: &Report) -> String {
    let day = report.started.split('T').next().unwrap_or_default();
    format!(
        "<header>\n<div><h1>strata <b>bench</b></h1>\n<p>{}</p>\n<p>{}; {day}</p></div>\n\
         <button id=\"theme\" type=\"button\" aria-label=\"Change between light and dark\">\
         <span class=\"sun\" aria-hidden=\"true\">☀</span><span class=\"moon\" aria-hidden=\"true\">☾</span>\
         </button>\n</header>\n<main>\n",
        escaped(&machine(&report.machine)),
        escaped(&how(report))
    )
}

fn legend(report: &Report) -> String {
    let mut html = "<ul class=\"legend\">\n".to_owned();
    for (at, driver) in report.drivers.iter().enumerate() {
        let words = [&driver.command, &driver.options, &driver.version];
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).cloned().collect();
        let base = if driver.name == report.parameters.base { " (the base)" } else { "" };
        let gone = match &driver.not_run {
            Some(reason) => format!(" <em>not run: {}</em>", escaped(reason)),
            None => String::new(),
        };
        html.push_str(&format!(
            "<li class=\"{}\"><svg class=\"key\" viewBox=\"-9 -9 18 18\" aria-hidden=\"true\">{}</svg>\
             <span><b>{}</b>{base}</span><small>{}{gone}</small></li>\n",
            colour(at),
            shape(at),
            escaped(&driver.name),
            escaped(&words.join(", "))
        ));
    }
    html + "</ul>\n"
}

fn at_a_glance(report: &Report) -> String {
    let chart = glance(report);
    let base = escaped(&report.parameters.base);
    if chart.is_empty() {
        return format!(
            "<section><h2>At a glance</h2><p>Nothing could be held against {base}, so there are no \
             ratios.</p></section>\n"
        );
    }
    format!(
        "<section><h2>At a glance</h2>\n<p>How many times as good as {base} each driver is, by medians; what \
         is right of the line is better. Distances grow by powers of ten; what is further away than the \
         scale reaches stands at its end.</p>\n\
         <div class=\"scroll\">{chart}</div></section>\n"
    )
}

fn workloads(report: &Report) -> String {
    let mut html = format!(
        "<section><h2>Every workload</h2>\n<p>Bars reach to the median, the line over them from the \
         smallest to the largest value, with a tick for each run. The last column is the median by that of \
         {}.</p>\n",
        escaped(&report.parameters.base)
    );
    for group in GROUPS {
        let of_it = report.workloads.iter().filter(|workload| workload.group == group);
        let cards: String = of_it.map(|workload| card(report, workload)).collect();
        if !cards.is_empty() {
            html.push_str(&format!(
                "<h3 class=\"group\">{}</h3>\n<div class=\"cards\">\n{cards}</div>\n",
                group_title(group)
            ));
        }
    }
    html + "</section>\n"
}

fn card(report: &Report, workload: &WorkloadReport) -> String {
    let figures = workload.figures.iter().map(|figure| {
        format!(
            "<h5>{} <small>{}</small></h5>\n{}",
            escaped(&figure.title),
            direction(figure),
            bars(report, figure)
        )
    });
    format!(
        "<article id=\"{}\"><h4>{}</h4>\n<p>{}</p>\n{}</article>\n",
        escaped(&workload.id),
        escaped(&workload.title),
        escaped(&sentence(&workload.what)),
        figures.collect::<String>()
    )
}

const fn direction(figure: &FigureReport) -> &'static str {
    match figure.better {
        Better::Lower => "less is better",
        Better::Higher => "more is better",
    }
}

/// Returns a text with a capital at its beginning and a full stop at its end.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

fn table(report: &Report) -> String {
    let mut rows = String::new();
    for figure in report.workloads.iter().flat_map(|workload| &workload.figures) {
        for (at, result) in figure.results.iter().enumerate() {
            let title = match at {
                0 => format!(
                    "<th scope=\"rowgroup\" rowspan=\"{}\">{}</th>",
                    figure.results.len(),
                    escaped(&figure.title)
                ),
                _ => String::new(),
            };
            let cells = match (result.median, result.min, result.max) {
                (Some(median), Some(min), Some(max)) => {
                    let spread = result.spread().unwrap_or(0.0) * 100.0;
                    let by_base = result.ratio.map_or_else(|| "–".to_owned(), ratio);
                    let value = |value| shown(value, figure.unit);
                    format!(
                        "<td>{}</td><td>{}</td><td>{}</td><td>±{spread:.0}%</td><td>{by_base}</td><td>{}</td>",
                        value(median),
                        value(min),
                        value(max),
                        result.values.len()
                    )
                }
                _ => {
                    let reason = result.not_run.as_deref().unwrap_or("no reason is known");
                    format!("<td class=\"gone\" colspan=\"6\">not run: {}</td>", escaped(reason))
                }
            };
            rows.push_str(&format!(
                "<tr>{title}<td>{}</td>{cells}</tr>\n",
                escaped(&result.driver)
            ));
        }
    }
    format!(
        "<section><details><summary>All figures as a table</summary>\n<div class=\"scroll\"><table>\n<thead><tr>\
         <th>Figure</th><th>Driver</th><th>Median</th><th>Least</th><th>Most</th><th>Spread</th>\
         <th>By {}</th><th>Runs</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div></details></section>\n",
        escaped(&report.parameters.base)
    )
}

fn method(report: &Report) -> String {
    let notes: String = report
        .notes
        .iter()
        .map(|note| format!("<li>{}</li>\n", escaped(&sentence(note))))
        .collect();
    let notes = if notes.is_empty() { notes } else { format!("<ul>\n{notes}</ul>\n") };
    format!(
        "<section class=\"method\"><h2>How it was measured</h2>\n<p>Every driver shows the same layers, which \
         were made once: as a layer of a store and as a directory. Each run has a mount of its own. The runs \
         are interleaved: every driver once, then every driver again, each round beginning with another. \
         What a run has found or done is held against what it must be; a driver that did something else, or \
         nothing, has no figure and is compared with nothing. Cold means that the kernel's caches were \
         emptied after the mount. One run could take {} seconds at most.</p>\n{notes}\
         <p>Measured by {} in {:.0} seconds.</p></section>\n</main>\n",
        report.parameters.time_limit_seconds,
        escaped(&report.program),
        report.seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::example::example;

    #[test]
    fn a_page_has_every_figure_and_needs_nothing_else() {
        let page = page(&example());
        for shown in [
            "walk, cold",
            "10.0 ms",
            "2.00 times as fast as overlay",
            "1.5 GB/s",
            "not run: it took longer than 1 s",
            "strata mount, volatile, strata 0.1.0",
            "<li>A note.</li>",
        ] {
            assert!(page.contains(shown), "{shown}");
        }
        for outside in ["http:", "https:", "url(", "src=", "@import", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("A &lt;fast&gt; one") && !page.contains("<fast>"));
        assert!(page.contains("no program &quot;gone&quot;"));
    }

    #[test]
    fn every_mark_of_a_page_is_closed() {
        let page = page(&example());
        for name in
            ["svg", "g", "div", "article", "section", "table", "tr", "td", "ul", "li", "span"]
        {
            let opened = [" ", ">"].map(|end| page.matches(&format!("<{name}{end}")).count());
            let closed = page.matches(&format!("</{name}>")).count();
            assert_eq!(opened.iter().sum::<usize>(), closed, "{name}");
        }
    }

    #[test]
    fn without_a_base_there_is_no_ratio() {
        let report = crate::service::merged(vec![example()], Some("gone")).unwrap();
        let page = page(&report);
        assert!(page.contains("Nothing could be held against gone"));
        assert!(!page.contains("class=\"glance\""));
    }
}
