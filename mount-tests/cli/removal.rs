//! Images that lose their names: by `rmi` and by `untag`.

use std::fs;

use crate::common::{Registry, Session, Who};

#[test]
fn names_go_one_by_one_and_the_image_with_the_last() {
    let session = Session::new(Who::User);
    session.import("base:1");
    session.run(&["tag", "base:1", "base:2"]);
    session.run(&["tag", "base:1", "other:1"]);
    assert_eq!(session.run(&["rmi", "--no-prune", "base:1"]), "Untagged: base:1\n");
    let id = session.run(&["images", "-q", "base:2"]).trim().to_owned();
    let conflict = format!(
        "Error: conflict: unable to delete {id} (must be forced) - image is referenced in multiple \
         repositories\n"
    );
    assert_eq!(session.refused(&["rmi", &id]), conflict);
    session.run(&["rmi", "other:1"]);
    session.run(&["tag", "base:2", "base:3"]);
    // Two tags of one repository are several, too.
    assert_eq!(session.refused(&["rmi", &id[..4]]), conflict);
    let said = session.run(&["rmi", "-f", &id[..4]]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["Untagged: base:2", "Untagged: base:3"]);
    assert!(lines[2].starts_with(&format!("Deleted: sha256:{id}")), "{said}");
    assert_eq!(session.run(&["images", "-q"]), "");
}

#[test]
fn of_several_images_what_can_go_goes() {
    let session = Session::new(Who::User);
    session.import("a:1");
    session.import("b:1");
    let output = session.try_run(&["rmi", "a:1", "none", "b:1"]);
    assert_eq!(output.code, 1);
    assert_eq!(output.stderr, "Error: No such image: none:latest\n");
    assert!(output.stdout.starts_with("Untagged: a:1\n"), "{}", output.stdout);
    assert!(output.stdout.contains("Untagged: b:1\nDeleted: sha256:"), "{}", output.stdout);
    let output = session.try_run(&["rmi", "-f", "none"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, ""));
    assert_eq!(output.stderr, "Error: No such image: none:latest\n");
}

#[test]
fn regression_what_is_missing_is_told_also_where_what_is_left_cannot_be_removed() {
    let session = Session::new(Who::User);
    session.import("base:1");
    // What a dead process was making, and root's.
    let left = session.path("store/staging/0123456789abcdef");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("file"), "").unwrap();
    for (arguments, told) in [
        (["rmi", "none"], "Error: No such image: none:latest\n"),
        (["rm", "none"], "Error: No such container: none\n"),
    ] {
        let said = session.refused(&arguments);
        assert!(said.ends_with(told), "{said}");
        assert!(said.contains("staging/0123456789abcdef"), "{said}");
    }
    assert!(session.refused(&["rmi", "base:1"]).contains("staging/0123456789abcdef"));
}

#[test]
fn an_image_in_use_is_kept_and_the_conflict_told() {
    let session = Session::new(Who::User);
    session.import("base:1");
    let container = session.run(&["create", "--name", "box", "base:1"])[..12].to_owned();
    let id = session.run(&["images", "-q"]).trim().to_owned();
    assert_eq!(
        session.refused(&["rmi", "base:1"]),
        format!(
            "Error: conflict: unable to remove repository reference \"base:1\" (must force) - \
             container {container} is using its referenced image {id}\n"
        )
    );
    assert_eq!(
        session.refused(&["rmi", &id]),
        format!(
            "Error: conflict: unable to delete {id} (must be forced) - image is being used by \
             stopped container {container}\n"
        )
    );
    session.dir("mount");
    session.run(&["mount", "box", "mount"]);
    for force in [&["rmi"][..], &["rmi", "-f"]] {
        assert_eq!(
            session.refused(&[force, &[&id]].concat()),
            format!(
                "Error: conflict: unable to delete {id} (cannot be forced) - image is being used by \
                 running container {container}\n"
            )
        );
    }
    assert_eq!(session.run(&["rmi", "-f", "base:1"]), "Untagged: base:1\n");
    session.unmount("mount");
    session.run(&["rm", "box"]);
    let said = session.run(&["rmi", &id]);
    assert!(said.starts_with("Deleted: sha256:"), "{said}");
}

#[test]
fn a_digest_goes_with_the_last_tag_of_its_repository_or_alone() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    let name = registry.image("demo:1");
    session.import(&name);
    session.run(&["push", "-q", &name]);
    session.run(&["rmi", &name]);
    session.run(&["pull", "-q", &name]);
    let digests = ["inspect", "-f", "{{join .RepoDigests \" \"}}", &name];
    let digest = session.run(&digests).trim().to_owned();
    assert!(digest.starts_with(&registry.image("demo@sha256:")), "{digest}");
    assert_eq!(session.run(&["rmi", &digest]), format!("Untagged: {digest}\n"));
    assert_eq!(session.run(&digests), "\n");
    session.run(&["pull", "-q", &name]);
    let said = session.run(&["rmi", &name]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], [format!("Untagged: {name}"), format!("Untagged: {digest}")]);
    session.run(&["pull", "-q", &digest]);
    let said = session.run(&["rmi", &digest]);
    assert!(said.starts_with(&format!("Untagged: {digest}\nDeleted: sha256:")), "{said}");
}

#[test]
fn untag_takes_names_and_keeps_the_image() {
    let session = Session::new(Who::User);
    session.import("base:1");
    session.run(&["tag", "base:1", "base:2"]);
    session.import("other:1");
    session.run(&["tag", "other:1", "third:1"]);
    let id = session.run(&["images", "-q", "base:1"]).trim().to_owned();
    let said = session.refused(&["untag", "base:1", "absent:1"]);
    assert_eq!(
        said,
        "Error: absent:1 is not a name of base:1; 'strata inspect base:1' shows its RepoTags\n"
    );
    assert_eq!(session.run(&["untag", "base:1", "base:2"]), "");
    assert_eq!(session.run(&["inspect", "-f", "{{.RepoTags}}", &id]), "[base:1]\n");
    assert_eq!(session.run(&["image", "untag", &id]), "");
    assert_eq!(session.run(&["inspect", "-f", "{{.RepoTags}}", &id]), "[]\n");
    assert_eq!(session.run(&["images", "-q", "-f", "dangling=true"]), format!("{id}\n"));
}
