//! Several reports as one: what was measured piece by piece.

use std::collections::BTreeSet;

use crate::bench::report::VERSION;
use crate::bench::{Error, Measured, Report, Result};

/// Returns the reports as one, with ratios to `base`, or to the base of the first one.
///
/// # Errors
/// [`Error::Reports`] when they are of different machines or forms, or one workload is there twice.
pub fn merged(reports: Vec<Report>, base: Option<&str>) -> Result<Report> {
    let mut reports = reports.into_iter();
    let mut whole = reports.next().ok_or_else(|| refuse("there is no report".to_owned()))?;
    check(&whole, &whole)?;
    for part in reports {
        check(&part, &whole)?;
        whole.seconds += part.seconds;
        for driver in part.drivers {
            match whole.drivers.iter_mut().find(|known| known.name == driver.name) {
                Some(known) => known.not_run = known.not_run.take().and(driver.not_run),
                None => whole.drivers.push(driver),
            }
        }
        whole.workloads.extend(part.workloads);
        whole.notes.extend(part.notes);
    }
    let mut seen = BTreeSet::new();
    whole.notes.retain(|note| seen.insert(note.clone()));
    if let Some(base) = base {
        base.clone_into(&mut whole.parameters.base);
    }
    complete(&mut whole)?;
    Ok(whole)
}

/// Gives every figure a result for each driver, and the ratios anew.
fn complete(report: &mut Report) -> Result<()> {
    let mut seen = BTreeSet::new();
    let base = report.parameters.base.clone();
    for workload in &mut report.workloads {
        if !seen.insert(workload.id.clone()) {
            return Err(refuse(format!("{} is there twice", workload.id)));
        }
        for figure in &mut workload.figures {
            let results = report.drivers.iter().map(|driver| {
                figure.of(&driver.name).cloned().unwrap_or_else(|| {
                    Measured::new(driver.name.clone(), Err("it was not asked for".to_owned()))
                })
            });
            figure.results = results.collect();
            figure.compare_with(&base);
        }
    }
    Ok(())
}

fn check(part: &Report, whole: &Report) -> Result<()> {
    if part.version != VERSION {
        return Err(refuse(format!("a report of form {}; this is {VERSION}", part.version)));
    }
    if part.machine != whole.machine {
        return Err(refuse("reports of different machines cannot be compared".to_owned()));
    }
    if part.parameters.size != whole.parameters.size {
        return Err(refuse("reports of different sizes cannot be compared".to_owned()));
    }
    Ok(())
}

const fn refuse(text: String) -> Error {
    Error::Reports(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        Better, DriverFacts, FigureReport, Group, MachineFacts, Parameters, Size, Unit,
        WorkloadReport,
    };

    fn report(workload: &str, drivers: &[(&str, f64)]) -> Report {
        let facts = |(name, _): &(&str, f64)| DriverFacts {
            name: (*name).to_owned(),
            command: String::new(),
            options: String::new(),
            version: String::new(),
            not_run: None,
        };
        let results =
            drivers.iter().map(|(name, value)| Measured::new((*name).to_owned(), Ok(vec![*value])));
        let figure = FigureReport {
            id: workload.to_owned(),
            title: workload.to_owned(),
            unit: Unit::Seconds,
            better: Better::Lower,
            results: results.collect(),
        };
        Report {
            version: VERSION,
            program: "strata".to_owned(),
            started: "now".to_owned(),
            seconds: 1.0,
            machine: MachineFacts::default(),
            parameters: Parameters {
                runs: 1,
                base: "overlay".to_owned(),
                tree: "made".to_owned(),
                size: Size::full(),
                time_limit_seconds: 1,
            },
            drivers: drivers.iter().map(facts).collect(),
            workloads: vec![WorkloadReport {
                id: workload.to_owned(),
                group: Group::Names,
                title: workload.to_owned(),
                what: String::new(),
                figures: vec![figure],
            }],
            notes: vec!["a note".to_owned()],
        }
    }

    #[test]
    fn reports_of_pieces_are_one_with_a_result_for_each_driver() {
        let parts = vec![
            report("walk", &[("overlay", 2.0), ("strata", 1.0)]),
            report("mount", &[("overlay", 4.0), ("peer", 1.0)]),
        ];
        let whole = merged(parts, None).unwrap();
        let names: Vec<_> = whole.drivers.iter().map(|driver| driver.name.as_str()).collect();
        assert_eq!(names, ["overlay", "strata", "peer"]);
        assert_eq!((whole.notes.len(), whole.seconds), (1, 2.0));
        let figure = &whole.workloads[1].figures[0];
        let ratios: Vec<_> = figure.results.iter().map(|result| result.ratio).collect();
        assert_eq!(ratios, [Some(1.0), None, Some(0.25)]);
        assert_eq!(figure.results[1].not_run.as_deref(), Some("it was not asked for"));
        let other = merged(vec![whole], Some("strata")).unwrap();
        assert_eq!(other.workloads[0].figures[0].results[0].ratio, Some(2.0));
    }

    #[test]
    fn reports_that_cannot_be_compared_are_refused() {
        let one = || report("walk", &[("overlay", 2.0)]);
        let elsewhere =
            Report { machine: MachineFacts { processors: 64, ..Default::default() }, ..one() };
        let newer = Report { version: VERSION + 1, ..one() };
        for (parts, said) in [
            (vec![], "there is no report"),
            (vec![one(), one()], "walk is there twice"),
            (vec![one(), elsewhere], "reports of different machines cannot be compared"),
            (vec![newer], "a report of form 2; this is 1"),
        ] {
            assert_eq!(merged(parts, None).unwrap_err().to_string(), said);
        }
    }
}
