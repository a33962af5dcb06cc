//! `strata bench`: small runs with every driver that there is, and what is left of runs that do not end
//! well: nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Session, Who, mounts_below, script, spawn, succeed};

/// How long anything may take, on whatever machine.
const DEADLINE: Duration = Duration::from_secs(600);

/// Runs a small benchmark in the folder of a session, and returns its report.
fn bench(session: &Session, words: &[&str]) -> Value {
    let dir = session.dir("bench");
    let json = session.dir("out").join("report.json");
    let mut arguments = vec!["bench", "--size", "0.001", "--runs", "1", "--dir"];
    arguments.push(dir.to_str().unwrap());
    arguments.extend(["--json", json.to_str().unwrap()]);
    arguments.extend(words);
    session.run(&arguments);
    nothing_is_left(session);
    serde_json::from_slice(&fs::read(json).unwrap()).unwrap()
}

/// Checks that no file, no mount and no process is left of a run.
fn nothing_is_left(session: &Session) {
    let dir = session.path("bench");
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!((left, mounts_below(&dir)), (vec![], vec![]));
    assert_eq!(processes_below(&dir), Vec::<String>::new());
}

/// Returns the processes that were started with a path below a directory as a word.
fn processes_below(dir: &Path) -> Vec<String> {
    let below = format!("{}/strata-bench-", dir.display());
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let words = entries.filter_map(|path| fs::read_to_string(path.join("cmdline")).ok());
    words.filter(|words| words.split('\0').any(|word| word.starts_with(&below))).collect()
}

/// Returns what came of a figure with a driver.
fn result<'a>(report: &'a Value, figure: &str, driver: &str) -> &'a Value {
    let workloads = report["workloads"].as_array().unwrap().iter();
    let mut figures = workloads.flat_map(|workload| workload["figures"].as_array().unwrap());
    let found = figures.find(|one| one["id"] == figure).unwrap_or_else(|| panic!("no {figure}"));
    let mut results = found["results"].as_array().unwrap().iter();
    results.find(|result| result["driver"] == driver).unwrap_or_else(|| panic!("no {driver}"))
}

/// Checks that a figure was measured once with a driver.
#[track_caller]
fn was_measured(report: &Value, figure: &str, driver: &str) {
    let result = result(report, figure, driver);
    let values = result["values"].as_array().unwrap();
    assert_eq!(values.len(), 1, "{figure}, {driver}: {result}");
    assert!(values[0].as_f64().unwrap() > 0.0, "{figure}, {driver}: {result}");
    assert_eq!(result["median"], values[0]);
    assert!(result["not_run"].is_null(), "{figure}, {driver}: {result}");
}

/// Returns why a figure was not measured with a driver; it is compared with nothing.
#[track_caller]
fn reason(report: &Value, figure: &str, driver: &str) -> String {
    let result = result(report, figure, driver);
    assert_eq!(result["values"], Value::Array(Vec::new()), "{figure}, {driver}: {result}");
    assert!(result["median"].is_null() && result["ratio"].is_null(), "{result}");
    result["not_run"].as_str().expect("a reason").to_owned()
}

/// Every workload that needs neither a program nor the disk to itself.
const WORKLOADS: &str = "walk-cold,walk,negative,readdir,small-read,large,random,mmap,create,overwrite,\
                         append,rename,unlink,mkdir,chmod,first-write,containers,mount,memory";
const DRIVERS: [&str; 6] =
    ["strata", "strata-dev", "strata-overlay", "overlay", "fuse-overlayfs", "native"];

#[test]
fn every_driver_does_the_same_work() {
    let session = Session::new(Who::Root);
    let html = session.dir("out").join("report.html");
    let drivers = DRIVERS.join(",");
    let words = ["--workloads", WORKLOADS, "--drivers", &drivers, "--html", html.to_str().unwrap()];
    let report = bench(&session, &words);
    assert_eq!(report["drivers"].as_array().unwrap().len(), DRIVERS.len());
    for workload in report["workloads"].as_array().unwrap() {
        let id = workload["id"].as_str().unwrap();
        for figure in workload["figures"].as_array().unwrap() {
            let figure = figure["id"].as_str().unwrap();
            let of_many_layers = ["mount-50", "mount-128", "mount-500"].contains(&figure);
            for driver in DRIVERS {
                match (id, driver) {
                    _ if of_many_layers && driver != "native" => {
                        assert_eq!(reason(&report, figure, driver), "this size has 10 layers");
                    }
                    ("mount" | "containers" | "memory", "native") => {
                        assert_eq!(reason(&report, figure, driver), "nothing is mounted");
                    }
                    ("memory", "overlay") => {
                        assert!(reason(&report, figure, driver).starts_with("the kernel serves"));
                    }
                    // It may be that nothing new was cached, or that all of it was dropped at once.
                    ("containers", _) if figure != "containers-time" => {}
                    _ => was_measured(&report, figure, driver),
                }
            }
        }
    }
    page_shows(&fs::read_to_string(html).unwrap(), &report);
}

/// Checks that a page has every figure and asks for nothing from elsewhere.
fn page_shows(page: &str, report: &Value) {
    for outside in ["http:", "https:", "url(", "src=", "@import", "<link", "<iframe"] {
        assert!(!page.contains(outside), "the page has {outside}");
    }
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    let (opened, closed) = (page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(opened > 100 && opened == closed, "{opened} charts begin, {closed} end");
    for workload in report["workloads"].as_array().unwrap() {
        for figure in workload["figures"].as_array().unwrap() {
            let title = figure["title"].as_str().unwrap();
            assert!(page.contains(title), "the page has no {title}");
        }
    }
    assert!(page.contains("prefers-color-scheme") && page.contains("id=\"theme\""));
}

#[test]
fn an_ordinary_user_measures_what_may_be_measured() {
    let session = Session::new(Who::User);
    let report = bench(
        &session,
        &[
            "--workloads",
            "walk-cold,walk,create,unlink,containers,memory",
            "--drivers",
            "strata,strata-dev,overlay,native",
        ],
    );
    for driver in ["strata", "strata-dev", "native"] {
        for figure in ["walk-first", "walk-warm", "create", "unlink-upper", "unlink-lower"] {
            was_measured(&report, figure, driver);
        }
        let cold = reason(&report, "walk-cold", driver);
        assert!(cold.contains("only root can empty the kernel's caches"), "{cold}");
    }
    for driver in ["strata", "strata-dev"] {
        was_measured(&report, "containers-time", driver);
        was_measured(&report, "memory-own", driver);
        assert!(reason(&report, "containers-cache", driver).contains("only root"));
    }
    assert!(reason(&report, "walk-warm", "overlay").contains("only root can mount"));
    // The base did not run, so nothing is held against it.
    assert!(result(&report, "walk-warm", "strata")["ratio"].is_null());
}

#[test]
fn the_tree_may_be_an_image_or_a_directory() {
    let session = Session::new(Who::Root);
    script(
        "mkdir -p tree/dir && cd tree
         for n in $(seq 60); do echo $n > dir/file-$n; mkdir dir/$n; echo $n > dir/$n/file; done
         mkdir dir/opaque && ln -s file-1 dir/link && ln dir/file-2 dir/hard && touch dir/gone
         echo below > dir/opaque/hidden",
        &session.path(""),
    );
    session.run(&["import", "tree", "base:1"]);
    script(
        "mkdir -p top/dir/opaque && cd top && echo changed > dir/file-3 && touch dir/.wh.gone
         touch dir/opaque/.wh..wh..opq && echo seen > dir/opaque/shown && tar -cf ../top.tar .",
        &session.path(""),
    );
    session.run(&["append", "base:1", "top.tar", "-t", "top:1"]);
    let drivers = "strata,strata-overlay,overlay,fuse-overlayfs,native";
    let workloads = "walk,small-read,unlink,rename";
    let words = ["--workloads", workloads, "--drivers", drivers];
    let image = bench(&session, &[&words[..], &["--image", "top:1"]].concat());
    let tree = session.path("tree");
    let tree = bench(&session, &[&words[..], &["--tree", tree.to_str().unwrap()]].concat());
    for (report, note) in [
        (image, "the image top:1 has 2 layers; the largest was split into 9, so that there are 10"),
        (tree, "has 1 layer; the largest was split into 10, so that there are 10"),
    ] {
        for driver in drivers.split(',') {
            for figure in ["walk-first", "small-read-again", "unlink-lower", "rename-lower"] {
                was_measured(&report, figure, driver);
            }
        }
        let notes = report["notes"].to_string();
        assert!(notes.contains(note), "{notes}");
    }
}

/// Makes a program that is called as a driver.
fn peer(session: &Session, name: &str, text: &str) -> String {
    let path = session.dir("peers").join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{name}={}", path.display())
}

#[test]
fn a_driver_that_does_something_else_has_no_figure_and_the_others_do() {
    let session = Session::new(Who::Root);
    let is_asked = "[ \"$1\" = --version ] && exit";
    let peers = [
        // It is called as: -o OPTIONS TARGET.
        peer(&session, "wrong", &format!("{is_asked}; mount -t tmpfs none \"$3\"")),
        peer(&session, "refusing", &format!("{is_asked}; echo no such luck >&2; exit 1")),
        peer(&session, "idle", "exit 0"),
        peer(&session, "hanging", &format!("{is_asked}; exec sleep 6000")),
        "gone=/nowhere/gone".to_owned(),
    ];
    let mut words =
        vec!["--workloads", "walk", "--drivers", "overlay,native", "--time-limit", "15"];
    for peer in &peers {
        words.extend(["--peer", peer]);
    }
    let report = bench(&session, &words);
    for (driver, why) in [
        ("wrong", "the first walk: expected"),
        ("refusing", "refusing ended with code 1: no such luck"),
        ("idle", "idle ended well, but nothing is mounted"),
        ("hanging", "it took longer than 15 s"),
        ("gone", "there is no program /nowhere/gone"),
    ] {
        let reason = reason(&report, "walk-first", driver);
        assert!(reason.starts_with(why), "{driver}: {reason}");
    }
    was_measured(&report, "walk-first", "overlay");
    was_measured(&report, "walk-first", "native");
}

#[test]
fn reports_of_pieces_are_shown_as_one() {
    let session = Session::new(Who::Root);
    let mut parts = Vec::new();
    for workload in ["mkdir", "negative"] {
        let report = bench(&session, &["--workloads", workload, "--drivers", "strata,native"]);
        let path = session.path(workload);
        fs::write(&path, report.to_string()).unwrap();
        parts.push(path);
    }
    let paths: Vec<_> = parts.iter().map(|path| path.to_str().unwrap()).collect();
    let words = ["bench", "--from", paths[0], "--from", paths[1], "--base", "native"];
    let shown = session.run(&[&words[..], &["--html", "one.html", "--json", "one.json"]].concat());
    for title in ["mkdir", "rmdir", "names that are not there, again"] {
        assert!(shown.contains(&format!("\n{title} ")), "{shown}");
    }
    let report: Value =
        serde_json::from_slice(&fs::read(session.path("one.json")).unwrap()).unwrap();
    assert_eq!(result(&report, "mkdir", "native")["ratio"], 1.0);
    assert!(result(&report, "negative-first", "strata")["ratio"].is_number());
    assert!(fs::read_to_string(session.path("one.html")).unwrap().contains("rmdir"));
    let twice = session.refused(&["bench", "--from", paths[0], "--from", paths[0]]);
    assert_eq!(twice, "Error: mkdir is there twice\n");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_made() {
    let session = Session::new(Who::User);
    session.dir("bench");
    for (words, said) in [
        (&["--drivers", "ext4"][..], "no driver is called \"ext4\""),
        (&["--workloads", "none"], "no workload is called \"none\"; see 'strata bench --list'"),
        (&["--base", "ext4"], "the base ext4 is not among the drivers"),
        (&["--json", "nowhere/report"], "nowhere/report cannot be a file"),
        (&["--size", "huge"], "\"huge\" is neither small nor full nor a number up to 10"),
        (&["--dir", "nowhere"], "find nowhere: no such file or directory"),
    ] {
        let words = [&["bench", "--dir", "bench"], words].concat();
        let refused = session.refused(&words);
        assert!(refused.contains(said), "{words:?}: {refused}");
    }
    nothing_is_left(&session);
    let list = session.run(&["bench", "--list"]);
    assert!(list.contains("walk-cold: walk, cold\n") && list.contains("mount-500"), "{list}");
}

/// Begins a run that would take hours, and returns it when it has something mounted.
fn begin(session: &Session, workload: &str) -> Child {
    let dir = session.dir("bench");
    let words = ["bench", "--size", "0.001", "--runs", "1000", "--workloads", workload];
    let mut command = session.command(&words);
    command.args(["--drivers", "strata,strata-dev,fuse-overlayfs", "--dir"]).arg(&dir);
    let mut child = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let start = Instant::now();
    while mounts_below(&dir).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it worked");
        assert!(start.elapsed() < DEADLINE, "nothing is mounted");
        std::thread::yield_now();
    }
    child
}

fn signal(pid: u32, name: &str) {
    succeed(Command::new("kill").args([format!("-{name}"), pid.to_string()]));
}

/// Waits for the end of a run and returns its exit code.
fn end(mut child: Child) -> Option<i32> {
    let pid = child.id();
    let (over, ended) = mpsc::channel();
    let waiting = std::thread::spawn(move || over.send(child.wait().unwrap()).unwrap());
    let status = ended.recv_timeout(DEADLINE);
    if status.is_err() {
        signal(pid, "KILL");
    }
    waiting.join().unwrap();
    status.expect("it ends").code()
}

#[test]
fn an_interrupted_run_leaves_no_mount() {
    for (who, name, code) in
        [(Who::Root, "INT", 130), (Who::User, "TERM", 143), (Who::Root, "HUP", 129)]
    {
        let session = Session::new(who);
        for workload in ["create", "containers"] {
            let child = begin(&session, workload);
            signal(child.id(), name);
            assert_eq!(end(child), Some(code));
            nothing_is_left(&session);
        }
    }
}

#[test]
fn a_run_that_is_interrupted_while_it_makes_layers_leaves_nothing() {
    let session = Session::new(Who::Root);
    let dir = session.dir("bench");
    let words = ["bench", "--size", "0.3", "--workloads", "walk", "--dir", dir.to_str().unwrap()];
    let mut command = session.command(&words);
    let mut child = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let start = Instant::now();
    let has_layers = || {
        let store = |entry: fs::DirEntry| entry.path().join("layers/store/staging").exists();
        fs::read_dir(&dir).unwrap().flatten().any(store)
    };
    while !has_layers() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it worked");
        assert!(start.elapsed() < DEADLINE, "no layer is made");
        std::thread::yield_now();
    }
    signal(child.id(), "INT");
    assert_eq!(end(child), Some(130));
    nothing_is_left(&session);
}

/// Returns the process that works for a run: its only child.
fn worker(run: &Child) -> u32 {
    let path = PathBuf::from(format!("/proc/{0}/task/{0}/children", run.id()));
    fs::read_to_string(path).unwrap().trim().parse().expect("one child")
}

#[test]
fn a_run_whose_work_dies_leaves_nothing() {
    let session = Session::new(Who::Root);
    let child = begin(&session, "create");
    signal(worker(&child), "KILL");
    assert_eq!(end(child), Some(128 + 9));
    nothing_is_left(&session);
}

#[test]
fn what_a_killed_run_has_left_is_taken_away_by_the_next() {
    let session = Session::new(Who::Root);
    let child = begin(&session, "create");
    let worker = worker(&child);
    signal(child.id(), "KILL");
    end(child);
    // The one that works dies with it.
    let start = Instant::now();
    while Path::new(&format!("/proc/{worker}/exe")).exists() {
        assert!(start.elapsed() < DEADLINE, "process {worker} goes on");
        std::thread::yield_now();
    }
    assert!(fs::read_dir(session.path("bench")).unwrap().count() > 0);
    bench(&session, &["--workloads", "mkdir", "--drivers", "native"]);
}
