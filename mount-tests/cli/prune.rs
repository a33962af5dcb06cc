//! Removing what nobody uses, and what of it is kept.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::common::{Session, Who, run, spawn};

/// Makes an image of a file of its own.
fn image(session: &Session, name: &str, created: &str) {
    fs::write(session.dir("image").join("file"), format!("{name}\n").repeat(1000)).unwrap();
    let mut command =
        session.command(&["import", "-c", &format!("LABEL of={name}"), "image", name]);
    assert_eq!(run(command.env("SOURCE_DATE_EPOCH", created)).code, 0);
}

fn names(session: &Session) -> Vec<String> {
    let text = session.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn regression_an_image_that_a_killed_command_has_noted_as_nameless_goes_with_its_name() {
    let session = Session::new(Who::User);
    session.import("base:1");
    let refs = session.path("store/refs");
    let named = fs::read(refs.join("docker.io/library/base/_tags/1")).unwrap();
    let record: Value =
        serde_json::Deserializer::from_slice(&named).into_iter().next().unwrap().unwrap();
    let manifest = record["manifest"].as_str().unwrap().trim_start_matches("sha256:");
    session.who.act(|| fs::write(refs.join("_untagged").join(manifest), &named).unwrap());
    assert_eq!(session.run(&["images", "-a", "-q"]).lines().count(), 1);
    let said = session.run(&["image", "prune", "-a", "-f"]);
    assert!(said.contains("untagged: base:1\ndeleted: sha256:"), "{said}");
    assert_eq!(session.run(&["images", "-a", "-q"]), "");
}

#[test]
fn without_all_only_images_without_a_name_go() {
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        image(&session, "a:1", "1000");
        image(&session, "b:1", "2000");
        session.run(&["tag", "b:1", "a:1"]);
        assert_eq!(session.run(&["image", "prune"]).lines().last(), Some(PROMPT));
        assert_eq!(names(&session), ["a:1", "b:1", "<none>:<none>"]);
        let said = session.run(&["image", "prune", "-f"]);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[0], "Deleted Images:");
        assert!(lines[1].starts_with("deleted: sha256:"), "{said}");
        assert!(lines.last().unwrap().starts_with("Total reclaimed space: "), "{said}");
        assert!(!said.contains("space: 0B"), "{said}");
        assert_eq!(names(&session), ["a:1", "b:1"]);
        assert_eq!(session.run(&["image", "prune", "-f"]), "Total reclaimed space: 0B\n");
    }
}

const PROMPT: &str = "Are you sure you want to continue? [y/N] ";

#[test]
fn a_person_is_asked_and_only_a_yes_is_one() {
    let session = Session::new(Who::User);
    for (answer, left) in [("n\n", 1), ("", 1), ("yes please\n", 1), ("y\n", 0)] {
        image(&session, "a:1", "1000");
        let mut command = session.command(&["image", "prune", "-a"]);
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains(PROMPT));
        assert_eq!(names(&session).len(), left, "{answer:?}");
    }
}

#[test]
fn images_of_containers_and_pinned_ones_stay() {
    let session = Session::new(Who::User);
    for name in ["used:1", "pinned:1", "free:1"] {
        image(&session, name, "1000");
    }
    session.run(&["create", "--name", "box", "used:1"]);
    session.run(&["pin", "pinned:1"]);
    let said = session.run(&["image", "prune", "-a", "-f"]);
    assert!(said.starts_with("Deleted Images:\nuntagged: free:1\ndeleted: sha256:"), "{said}");
    assert_eq!(names(&session), ["pinned:1", "used:1"]);
    session.dir("mount");
    session.run(&["mount", "box", "mount"]);
    assert_eq!(session.run(&["container", "prune", "-f"]), "Total reclaimed space: 0B\n");
    session.unmount("mount");
    session.run(&["unpin", "pinned:1"]);
    let said = session.run(&["system", "prune", "-a", "-f"]);
    assert!(said.starts_with("Deleted Containers:\n"), "{said}");
    assert!(names(&session).is_empty());
    let refused = session.refused(&["unpin", "pinned:1"]);
    assert!(refused.contains("No such image"), "{refused}");
}

#[test]
fn filters_say_which_images_go() {
    let session = Session::new(Who::User);
    let fill = || {
        for (name, created) in [("a:1", "1000"), ("a:2", "2000"), ("a:3", "3000"), ("b:1", "1000")]
        {
            image(&session, name, created);
        }
    };
    for (filter, left) in [
        ("keep-last=2", &["a:3", "a:2", "b:1"][..]),
        ("reference=a", &["b:1"]),
        ("reference=?:1", &["a:3", "a:2"]),
        ("label=of=a:2", &["a:3", "a:1", "b:1"]),
        ("until=1500", &["a:3", "a:2"]),
        ("unused-for=1h", &[]),
    ] {
        fill();
        session.run(&["image", "prune", "-a", "-f", "--filter", filter]);
        assert_eq!(names(&session), left, "{filter}");
    }
    fill();
    session.run(&["create", "--name", "box", "a:2"]);
    session.run(&["rm", "box"]);
    session.run(&["image", "prune", "-a", "-f", "--filter", "unused-for=1h"]);
    assert_eq!(names(&session), ["a:2"], "it was used a moment ago");
    for (arguments, said) in [
        (&["image", "prune", "-f", "--filter", "keep-last=1"][..], "say --all as well"),
        (&["image", "prune", "-af", "--filter", "keep-last=few"], "few"),
        (&["image", "prune", "-f", "--filter", "colour=red"], "colour"),
    ] {
        let refused = session.refused(arguments);
        assert!(refused.contains(said), "{arguments:?}: {refused}");
    }
}

#[test]
fn what_the_disk_would_give_back_is_what_it_gives_back() {
    let session = Session::new(Who::User);
    image(&session, "a:1", "1000");
    image(&session, "b:1", "2000");
    session.run(&["create", "--name", "box", "a:1"]);
    let room = |field: &str| {
        let template = format!("{{{{.Type}}}} {{{{.{field}}}}}");
        let text = session.run(&["system", "df", "--format", &template]);
        text.lines().next().unwrap().strip_prefix("Images ").unwrap().to_owned()
    };
    assert_eq!((room("TotalCount").as_str(), room("Active").as_str()), ("2", "1"));
    let reclaimable = room("Reclaimable").split_whitespace().next().unwrap().to_owned();
    let said = session.run(&["image", "prune", "-a", "-f"]);
    assert_eq!(said.lines().last().unwrap(), format!("Total reclaimed space: {reclaimable}"));
    assert!(room("Reclaimable").starts_with("0B"));
    let verbose = session.run(&["system", "df", "-v"]);
    assert!(verbose.contains("UNIQUE SIZE") && verbose.contains("box"), "{verbose}");
}
