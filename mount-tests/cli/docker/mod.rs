//! Strata does what docker does: the same commands on the same images, compared with a record of docker.
//!
//! `mount-tests/compat` has the records. `scripts/record-docker` makes them anew, from a daemon of docker.

mod deviations;
mod images;
pub(crate) mod normal;
mod record;
mod world;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::cli::docker::deviations::DEVIATIONS;
use crate::cli::docker::record::{Step, shown};
use crate::cli::docker::world::{Answers, World};

/// Returns the files with records, in the order of their names.
fn records() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-tests/compat");
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn steps(path: &Path) -> Vec<Step> {
    record::read(&fs::read_to_string(path).unwrap())
}

#[test]
fn commands_do_what_they_do_with_docker() {
    let differences: Vec<_> = thread::scope(|scope| {
        let compare = |path| scope.spawn(move || compare(path));
        let running: Vec<_> = records().into_iter().map(compare).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Runs the commands of a record with strata and returns where it says anything else than is expected.
fn compare(path: PathBuf) -> Vec<String> {
    let world = World::new(Answers::Strata);
    let mut differences = Vec::new();
    for step in steps(&path) {
        let said = world.run(&step.command);
        let at = format!("{}: $ {}", path.display(), step.command);
        if said != *step.expected() {
            differences.push(format!(
                "{at}\nexpected:\n{}strata:\n{}",
                shown(step.expected()),
                shown(&said)
            ));
        }
        if step.strata.as_ref() == Some(&step.docker) {
            differences.push(format!("{at}\ndoes not differ from docker any more"));
        }
    }
    differences
}

#[test]
fn the_page_has_every_deviation() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let page = fs::read_to_string(page).unwrap();
    for deviation in &DEVIATIONS {
        assert!(page.contains(&deviation.row()), "docs/cli.md lacks {}", deviation.row());
    }
    let steps: Vec<_> = records().iter().flat_map(|path| steps(path)).collect();
    let used: BTreeSet<_> = steps.iter().filter_map(|step| step.deviation.as_deref()).collect();
    let known: BTreeSet<_> = DEVIATIONS.iter().map(|deviation| deviation.name).collect();
    assert_eq!(used, known, "what the records name, and what is in the table");
    for step in &steps {
        assert_eq!(step.deviation.is_some(), step.strata.is_some(), "{}", step.command);
    }
}

#[test]
#[ignore = "scripts/record-docker runs it, which has a daemon of docker"]
fn record_what_docker_does() {
    let host = std::env::var_os("DOCKER_HOST").expect("DOCKER_HOST says where the daemon is");
    for path in records() {
        let mut steps = steps(&path);
        let docker = World::new(Answers::Docker(host.clone()));
        let found = docker.run("docker images -aq && docker ps -aq");
        assert_eq!(found.stdout, "", "the daemon at {host:?} has images or containers");
        let strata = World::new(Answers::Strata);
        for step in &mut steps {
            step.docker = docker.run(&step.command);
            let said = strata.run(&step.command);
            step.strata = step.deviation.as_ref().map(|_| said);
        }
        fs::write(path, record::write(&steps)).unwrap();
    }
}
