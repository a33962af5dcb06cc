//! What is typed: two spellings of a command, and what is said of wrong words.

use crate::common::{Session, Who};

#[test]
fn a_command_has_a_long_name_too() {
    let session = Session::new(Who::User);
    session.import("base:1");
    session.run(&["container", "create", "--name", "box", "base:1"]);
    session.run(&["image", "tag", "base:1", "other:2"]);
    for (short, long) in [
        (&["images", "-q"][..], &["image", "ls", "-q"][..]),
        (&["images", "-q"], &["image", "list", "-q"]),
        (&["ps", "-aq"], &["container", "ls", "-aq"]),
        (&["ps", "-aq"], &["container", "list", "-aq"]),
        (&["ps", "-aq"], &["container", "ps", "-aq"]),
        (&["history", "-q", "base:1"], &["image", "history", "-q", "base:1"]),
        (&["inspect", "base:1"], &["image", "inspect", "base:1"]),
        (&["inspect", "box"], &["container", "inspect", "box"]),
        (&["diff", "box"], &["container", "diff", "box"]),
    ] {
        assert_eq!(session.run(short), session.run(long), "{long:?}");
    }
    assert_eq!(session.run(&["container", "rm", "box"]), "box\n");
    assert_eq!(session.run(&["image", "rm", "other:2"]), "Untagged: other:2\n");
    let said = session.run(&["image", "remove", "base:1"]);
    assert!(said.starts_with("Untagged: base:1\nDeleted: sha256:"), "{said}");
}

#[test]
fn a_long_name_says_which_kind_is_meant() {
    let session = Session::new(Who::User);
    session.import("both:1");
    session.run(&["create", "--name", "both", "both:1"]);
    let image = session.try_run(&["image", "inspect", "box"]);
    assert_eq!((image.stdout.as_str(), image.code), ("[]\n", 1));
    assert_eq!(image.stderr, "Error: No such image: box:latest\n");
    let container = session.try_run(&["container", "inspect", "both:1"]);
    assert_eq!((container.stdout.as_str(), container.code), ("[]\n", 1));
    assert_eq!(container.stderr, "Error: No such container: both:1\n");
}

#[test]
fn wrong_words_are_told_on_standard_error_with_dockers_codes() {
    let session = Session::new(Who::User);
    for (arguments, first, code) in [
        (&["images", "--foo"][..], "unknown flag: --foo", 125),
        (&["image", "ls", "-z"], "unknown shorthand flag: 'z' in -z", 125),
        (&["foo"], "strata: unknown command: strata foo", 1),
        (&["image", "foo"], "strata: unknown command: strata image foo", 1),
        (&["image", "rm"], "strata: 'strata image rm' requires at least 1 argument", 1),
    ] {
        let output = session.try_run(arguments);
        assert_eq!((output.stdout.as_str(), output.code), ("", code), "{arguments:?}");
        assert_eq!(output.stderr.lines().next(), Some(first));
        assert!(output.stderr.ends_with("--help' for more information\n"), "{}", output.stderr);
    }
    let output = session.try_run(&["image"]);
    assert!(output.stderr.contains("Usage: strata image COMMAND"), "{}", output.stderr);
    assert_eq!((output.stdout.as_str(), output.code), ("", 0));
    assert!(session.run(&["image", "--help"]).contains("Usage: strata image COMMAND"));
}
