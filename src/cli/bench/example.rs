//! A small report, for tests of what is made of one.

use serde_json::{Value, json};

use crate::service::{Report, merged};

/// Returns a report of two figures with three drivers, of which one is not there.
pub(crate) fn example() -> Report {
    let result = |driver: &str, values: &[f64], not_run: Option<&str>| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2);
        json!({
            "driver": driver, "values": values, "median": median, "min": sorted.first(),
            "max": sorted.last(), "ratio": null, "not_run": not_run,
        })
    };
    let gone = || result("gone", &[], Some("no program \"gone\""));
    let figure = |id: &str, title: &str, unit: &str, better: &str, results: Vec<Value>| {
        json!({
            "id": id, "group": "names", "title": title, "what": "does <it>",
            "figures": [{"id": id, "title": title, "unit": unit, "better": better, "results": results}],
        })
    };
    let walk = vec![
        result("strata", &[0.010, 0.009, 0.012], None),
        result("overlay", &[0.020, 0.020, 0.020], None),
        gone(),
    ];
    let large = vec![
        result("strata", &[1.5e9, 1.5e9, 1.5e9], None),
        result("overlay", &[], Some("it took longer than 1 s")),
        gone(),
    ];
    let driver = |name: &str,
                  command: &str,
                  options: &str,
                  version: &str,
                  not_run: Option<&str>| {
        json!({
            "name": name, "command": command, "options": options, "version": version, "not_run": not_run,
        })
    };
    let report = json!({
        "version": 1, "program": "strata 0.1.0", "started": "2025-11-30T01:02:03Z", "seconds": 12.5,
        "machine": {
            "kernel": "6.18.0", "system": "Debian", "architecture": "x86_64", "processor": "A <fast> one",
            "processors": 2, "memory_bytes": 16_u64 << 30, "file_system": "ext4", "is_root": true,
        },
        "parameters": {
            "runs": 3, "base": "overlay", "tree": "made", "time_limit_seconds": 1,
            "size": crate::service::Size::parse("0.001").expect("a size"),
        },
        "drivers": [
            driver("strata", "strata mount", "volatile", "strata 0.1.0", None),
            driver("overlay", "mount -t overlay", "", "Linux 6.18.0", None),
            driver("gone", "gone", "", "", Some("no program \"gone\"")),
        ],
        "workloads": [
            figure("walk-cold", "walk, cold", "seconds", "lower", walk),
            figure("large", "big file", "bytes-per-second", "higher", large),
        ],
        "notes": ["a note"],
    });
    let report = serde_json::from_value(report).expect("it has the form of a report");
    merged(vec![report], None).expect("it is one")
}
