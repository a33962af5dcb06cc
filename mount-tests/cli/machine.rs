//! What strata says of itself and of the machine.

use std::fs;

use serde_json::Value;

use crate::common::{Session, Who};

#[test]
fn version_and_info_have_dockers_fields() {
    let session = Session::new(Who::User);
    let version = env!("CARGO_PKG_VERSION");
    assert!(session.run(&["version"]).contains(&format!("\n Version:           {version}\n")));
    for template in ["{{.Client.Version}}", "{{.Server.Version}}"] {
        assert_eq!(session.run(&["version", "--format", template]), format!("{version}\n"));
    }
    let output = session.try_run(&["version", "-f", "{{.Client"]);
    assert_eq!((output.code, output.stdout.as_str()), (64, ""));
    assert_eq!(output.stderr, "template parsing error: template: :1: unclosed action\n");

    session.import("base:1");
    session.run(&["create", "--name", "box", "base:1"]);
    let info = session.run(&["info"]);
    assert!(info.contains("\n Containers: 1\n  Running: 0\n"), "{info}");
    assert!(info.contains("\n Images: 1\n"), "{info}");
    let root = session.path("store").display().to_string();
    assert_eq!(session.run(&["system", "info", "-f", "{{.DockerRootDir}}"]), format!("{root}\n"));
    let info: Value = serde_json::from_str(&session.run(&["info", "-f", "json"])).unwrap();
    assert_eq!((&info["Images"], &info["ContainersStopped"]), (&1.into(), &1.into()));
    assert!(info["MemTotal"].as_u64().unwrap() > 1 << 20 && info["NCPU"].as_u64().unwrap() > 0);
}

#[test]
fn a_packager_gets_completions_and_manual_pages() {
    let session = Session::new(Who::User);
    for (shell, word) in [
        ("bash", "complete -F _strata"),
        ("zsh", "#compdef strata"),
        ("fish", "complete -c strata"),
    ] {
        let said = session.run(&["completions", shell]);
        assert!(said.contains(word), "{shell}");
    }
    assert_eq!(session.run(&["man", "pages/man1"]), "");
    let pages = session.path("pages/man1");
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("strata.1").starts_with(".ie ") || page("strata.1").contains(".TH strata 1"));
    assert!(page("strata-images.1").contains("until"));
    assert!(page("strata-image-ls.1").contains("List images"));
    let said = session.refused(&["search", "nginx"]);
    assert!(said.contains("https://hub.docker.com/search?q=nginx"), "{said}");
}

#[test]
fn the_doctor_looks_at_everything_and_says_what_to_do() {
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        let said = session.try_run(&["doctor"]).stdout;
        for what in [
            "kernel",
            "/dev/fuse",
            "fusermount3",
            "user namespaces",
            "FUSE passthrough",
            "FUSE over io_uring",
            "store",
            "fs-verity",
            "reflink",
            "free space",
        ] {
            let line = said.lines().find(|line| line.get(6..).is_some_and(|l| l.starts_with(what)));
            assert!(line.is_some(), "{what}: {said}");
        }
        for (line, next) in said.lines().zip(said.lines().skip(1)) {
            let wants = line.starts_with("slow") || line.starts_with("bad");
            assert!(!wants || next.trim_start().starts_with("try: "), "{said}");
        }
    }
}
