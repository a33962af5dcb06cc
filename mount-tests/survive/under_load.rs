//! Programs that work while servers are killed or upgraded, again and again.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Lower, Who, differences, forget_times, run, setting, spawn, tree_of};
use crate::oracle::crowd::{Crowd, fill};
use crate::survive::Held;
use crate::survive::held::How;

/// How many servers are replaced: so many, if nobody says otherwise.
fn rounds(how: How) -> usize {
    let (name, few) = match how {
        How::Killed => ("STRATA_SURVIVE_KILLS", 20),
        How::Upgraded | How::UpgradedRings | How::UpgradedHeld => ("STRATA_SURVIVE_UPGRADES", 6),
    };
    setting(name, few).try_into().unwrap()
}

/// How many files the build has.
const SOURCES: usize = 40;

const MAKEFILE: &str = "\
all: depends out

prog: $(OBJECTS) main.o
\tgcc -o $@ $^

objects/%.o: sources/%.c common.h
\t@mkdir -p objects
\tgcc -MMD -c -o $@.new $< && mv $@.new $@

main.o: main.c common.h
\tgcc -c -o $@ $<

depends: prog
\tcat objects/*.d >depends.new
\tmv depends.new depends
\tfor file in objects/*.d; do rm $$file; done

out: prog
\t./prog >out
";

/// Makes a program of many files.
fn sources(dir: &Path) {
    fs::create_dir_all(dir.join("sources")).unwrap();
    fs::write(dir.join("common.h"), "#include <stdio.h>\n").unwrap();
    let (mut main, mut calls) = ("#include \"common.h\"\n".to_owned(), String::new());
    let mut objects = "OBJECTS =".to_owned();
    for number in 0..SOURCES {
        let name = format!("f{number:03}");
        let source =
            format!("#include \"../common.h\"\nint {name}(int x) {{ return x + {number}; }}\n");
        fs::write(dir.join(format!("sources/{name}.c")), source).unwrap();
        main.push_str(&format!("int {name}(int);\n"));
        calls.push_str(&format!(" + {name}(1)"));
        objects.push_str(&format!(" objects/{name}.o"));
    }
    main.push_str(&format!("int main(void) {{ printf(\"%d\\n\", 0{calls}); return 0; }}\n"));
    fs::write(dir.join("main.c"), main).unwrap();
    fs::write(dir.join("Makefile"), format!("{objects}\n\n{MAKEFILE}")).unwrap();
}

/// Builds, with `step` called for every line that make says; nothing may complain.
fn build(dir: &Path, mut step: impl FnMut()) {
    let mut make = Command::new("make");
    make.args(["-j3", "-C"]).arg(dir).env("LC_ALL", "C");
    let mut make = spawn(make.stdout(Stdio::piped()).stderr(Stdio::piped()));
    for line in BufReader::new(make.stdout.take().expect("it is piped")).lines() {
        line.unwrap();
        step();
    }
    let output = make.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// Describes what a build has made, but for times.
fn built(dir: &Path) -> crate::common::Tree {
    let mut tree = tree_of(dir);
    forget_times(&mut tree, |_, _| true);
    tree
}

/// Builds in a mount whose server is replaced so many times, as the build goes on.
fn build_with(lower: Lower, how: How) {
    let mut held = Held::with(Who::Root, lower, how, |dir| sources(&dir.join("undisturbed")));
    build(&held.path("undisturbed"), || {});
    let expected = built(&held.path("undisturbed"));
    let rounds = rounds(how);
    // The more servers are to be replaced, the more often the same is built.
    for round in 0.. {
        if held.replaced() >= rounds {
            break;
        }
        let dir = held.path(&format!("build-{round}"));
        sources(&dir);
        let mut lines = 0;
        build(&dir, || {
            lines += 1;
            if lines % 3 == 0 {
                held.replace();
            }
        });
        assert_eq!(differences(&expected, &built(&dir)), Vec::<String>::new());
        let removed = run(Command::new("rm").arg("-r").arg(&dir));
        assert_eq!((removed.code, removed.stderr.as_str()), (0, ""));
    }
    assert_eq!(held.unmount(), 0);
}

#[test]
fn a_build_does_not_notice_that_its_server_is_killed() {
    build_with(Lower::Image, How::Killed);
}

#[test]
fn a_build_on_plain_directories_does_not_notice_that_its_server_is_killed() {
    build_with(Lower::Dirs, How::Killed);
}

#[test]
fn a_build_does_not_notice_that_its_server_is_upgraded() {
    for how in How::upgrades() {
        build_with(Lower::Image, how);
    }
}

/// Returns how many requests a server has taken: its calls that read.
fn taken(server: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{server}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("syscr: "))?.parse().ok()
}

/// Replaces servers until there were so many; one that is killed has done some work before.
fn replace_as_work_goes_on(held: &Held, how: How, rounds: usize) {
    const PERIOD: u64 = 7;
    while held.replaced() < rounds {
        if how == How::Killed {
            let server = held.server();
            let work = 20 + 150 * (u64::try_from(held.replaced()).unwrap() % PERIOD);
            while taken(server).is_some_and(|taken| taken < work) {
                std::thread::yield_now();
            }
        }
        held.replace();
    }
}

/// Has a crowd work in a mount while servers are replaced; everything must be as each has made it.
fn crowd_with(how: How) {
    const ACTORS: usize = 4;
    const TREES: usize = 8;
    let mut held =
        Held::with(Who::Root, Lower::Image, how, |dir| fill(&dir.join("crowd"), TREES, ACTORS));
    let crowd = Crowd::new(&held.path("crowd"), TREES, ACTORS);
    let (rounds, is_over) = (rounds(how), AtomicBool::new(false));
    let expected = std::thread::scope(|scope| {
        let replacer = scope.spawn(|| {
            replace_as_work_goes_on(&held, how, rounds);
            is_over.store(true, Ordering::Release);
        });
        let goes_on = || !is_over.load(Ordering::Acquire) && !replacer.is_finished();
        crowd.work(1, &goes_on)
    });
    assert!(held.replaced() >= rounds);
    held.replace();
    expected.iter().for_each(|expected| crowd.check(expected));
    drop(crowd);
    assert_eq!(held.unmount(), 0);
}

#[test]
fn a_crowd_does_not_notice_that_its_server_is_killed() {
    crowd_with(How::Killed);
}

#[test]
fn a_crowd_does_not_notice_that_its_server_is_upgraded() {
    for how in How::upgrades() {
        crowd_with(how);
    }
}
