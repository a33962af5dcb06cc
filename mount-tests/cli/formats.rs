//! What lists and `inspect` print when they are asked for a form of their own.

use std::fs;

use crate::common::{Session, Who};

/// The time of creation of the images, and what is said of it.
const MADE: &str = "1700000000";

fn import(session: &Session, name: &str, made: &str, changes: &[&str]) {
    fs::write(session.dir("image").join("file"), "content\n").unwrap();
    let changes = changes.iter().flat_map(|change| ["-c", change]);
    let mut arguments = vec!["import"];
    arguments.extend(changes.chain(["image", name]));
    let output = crate::common::run(session.command(&arguments).env("SOURCE_DATE_EPOCH", made));
    assert_eq!(output.code, 0, "{}", output.stderr);
}

/// Returns a session with two images, and a container of the first.
fn with_images() -> Session {
    let session = Session::new(Who::User);
    let changes = ["CMD [\"/bin/sh\"]", "LABEL stage=test", "EXPOSE 80"];
    import(&session, "team/app:1", MADE, &changes);
    import(&session, "base:1", "1600000000", &[]);
    session.run(&["create", "--name", "box", "team/app:1"]);
    session
}

#[test]
fn inspect_prints_what_a_template_of_go_asks_for() {
    let session = with_images();
    for (template, expected) in [
        ("{{.Config.Cmd}}", "[/bin/sh]\n"),
        ("{{.Config.Entrypoint}}", "[]\n"),
        ("{{json .Config.Cmd}}", "[\"/bin/sh\"]\n"),
        ("{{.Config.ExposedPorts}}", "map[80/tcp:{}]\n"),
        ("{{index .Config.Labels \"stage\"}}", "test\n"),
        ("{{.Config.Labels.stage}} {{.Config.Labels.none}}", "test <no value>\n"),
        ("{{range .RepoTags}}{{println .}}{{end}}", "team/app:1\n\n"),
        ("{{.RootFS.Type}} {{len .RootFS.Layers}}", "layers 1\n"),
        ("{{.Os}}", "linux\n"),
    ] {
        assert_eq!(session.run(&["inspect", "-f", template, "team/app:1"]), expected);
    }
    assert_eq!(session.run(&["inspect", "--format", "{{.Name}}", "box"]), "/box\n");
    let both = ["container", "inspect", "-sf", "{{.State.Status}} {{.SizeRw}} {{.SizeRootFs}}"];
    assert_eq!(session.run(&[&both[..], &["box"]].concat()), "created 0 8\n");
    let compact = session.run(&["inspect", "--format", "json", "box"]);
    assert!(compact.starts_with("[{\"Id\":\"") && compact.lines().count() == 1, "{compact}");
}

#[test]
fn inspect_tells_what_is_wrong_with_a_template() {
    let session = with_images();
    for (template, code, stdout, stderr) in [
        ("{{.Id", 64, "", "template parsing error: template: :1: unclosed action\n"),
        (
            "{{.Config.Nope}}",
            1,
            "\n",
            "template parsing error: template: :1:9: executing \"\" at <.Config.Nope>: map has no \
             entry for key \"Nope\"\n",
        ),
    ] {
        let output = session.try_run(&["inspect", "-f", template, "team/app:1"]);
        assert_eq!(
            (output.code, output.stdout.as_str(), output.stderr.as_str()),
            (code, stdout, stderr)
        );
    }
    let output = session.try_run(&["inspect", "-f", "{{.Id}}", "absent"]);
    let expected = (1, "\n".to_owned(), "Error: No such object: absent\n".to_owned());
    assert_eq!((output.code, output.stdout, output.stderr), expected);
    let output = session.try_run(&["inspect", "--type", "foo", "team/app:1"]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.starts_with("unknown type: \"foo\": must be one of"),
        "{}",
        output.stderr
    );
}

#[test]
fn lists_print_what_a_format_asks_for() {
    let session = with_images();
    for (arguments, expected) in [
        (
            &["images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}} {{.CreatedAt}}"][..],
            "team/app:1 8B 2023-11-14 22:13:20 +0000 UTC\nbase:1 8B 2020-09-13 12:26:40 +0000 UTC\n",
        ),
        (
            &["images", "--format", r"table {{.Repository}}\t{{upper .Tag}}\t{{.Size}}"],
            "REPOSITORY   TAG       SIZE\nteam/app     1         8B\nbase         1         8B\n",
        ),
        (&["images", "-f", "reference=none", "--format", r"table {{.ID}}"], "IMAGE ID\n"),
        (
            &["history", "--format", "{{.CreatedAt}} {{.Size}} {{.Comment}}", "base:1"],
            "2020-09-13T12:26:40Z 8B Imported from image\n",
        ),
        (
            &["ps", "-a", "--format", "{{.Names}} {{.State}} {{.Command}} {{.Labels}}"],
            "box created \"/bin/sh\" stage=test\n",
        ),
        (
            &["ps", "-as", "--format", r"table {{.Names}}\t{{.Size}}"],
            "NAMES     SIZE\nbox       0B (virtual 8B)\n",
        ),
    ] {
        assert_eq!(session.run(arguments), expected, "{arguments:?}");
    }
    let said = session.run(&["images", "--format", "json", "team/app"]);
    assert!(said.starts_with("{\"Containers\":\"N/A\",\"CreatedAt\":\"2023-11-14 "), "{said}");
    let output = session.try_run(&["images", "--format", "{{.Foo}}"]);
    let expected = "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate \
                    field Foo in type *formatter.imageContext\n";
    assert_eq!((output.code, output.stderr.as_str()), (1, expected));
}

#[test]
fn lists_are_confined_by_filters() {
    let session = with_images();
    session.run(&["tag", "base:1", "localhost:5000/a/b:1"]);
    let names = |arguments: &[&str]| -> Vec<String> {
        let format = ["--format", "{{.Repository}}:{{.Tag}}"];
        let mut words = vec!["images"];
        words.extend(arguments.iter().copied().chain(format));
        let mut names: Vec<_> = session.run(&words).lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    let (app, base, other) = ("team/app:1", "base:1", "localhost:5000/a/b:1");
    for (arguments, expected) in [
        (&["-f", "label=stage"][..], &[app][..]),
        (&["-f", "label=stage=test"], &[app]),
        (&["-f", "label!=stage"], &[base, other]),
        (&["-f", "label=stage=live"], &[]),
        (&["-f", "before=team/app:1"], &[base, other]),
        (&["-f", "since=base:1"], &[app]),
        (&["-f", "until=2022-01-01"], &[base, other]),
        (&["-f", "until=24h"], &[base, other, app]),
        (&["-f", "reference=b*", "-f", "reference=team/*"], &[base, app]),
        (&["-f", "dangling=true"], &[]),
        (&["localhost:5000/*/*"], &[other]),
        (&["*"], &[base]),
        (&["docker.io/library/base"], &[base]),
    ] {
        assert_eq!(names(arguments), expected, "{arguments:?}");
    }
    for (filter, said) in [
        ("foo=1", "Error: invalid filter 'foo'\n"),
        ("dangling=maybe", "Error: invalid filter 'dangling=[maybe]'\n"),
    ] {
        assert_eq!(session.refused(&["images", "-f", filter]), said);
    }
    let output = session.try_run(&["images", "-f", "foo"]);
    let first = "invalid argument \"foo\" for \"-f, --filter\" flag: bad format of filter (expected \
                 name=value)";
    assert_eq!((output.code, output.stderr.lines().next()), (125, Some(first)));
}

#[test]
fn containers_are_confined_by_filters() {
    let session = with_images();
    session.run(&["create", "--name", "other", "base:1"]);
    for (filters, expected) in [
        (&["-f", "name=o"][..], "other\nbox\n"),
        (&["-f", "name=^/box$"], "box\n"),
        (&["-f", "ancestor=base:1"], "other\n"),
        (&["-f", "label=stage=test"], "box\n"),
        (&["-f", "since=box"], "other\n"),
        (&["-f", "before=other"], "box\n"),
        (&["-f", "status=dead"], ""),
        (&["-f", "status=created", "-f", "name=box"], "box\n"),
        (&["-n", "1"], "other\n"),
        (&["-l"], "other\n"),
    ] {
        let mut words = vec!["ps", "-a", "--format", "{{.Names}}"];
        words.extend(filters);
        assert_eq!(session.run(&words), expected, "{filters:?}");
    }
    assert_eq!(session.run(&["ps", "-f", "status=created", "-q"]).lines().count(), 2);
    let said = session.refused(&["ps", "-f", "status=foo"]);
    assert_eq!(said, "Error: invalid filter 'status=[foo]'\n");
}

#[test]
fn a_tree_of_images_has_no_colours_in_a_pipe() {
    let session = with_images();
    session.run(&["tag", "base:1", "again:1"]);
    let said = session.run(&["images", "--tree"]);
    assert!(said.is_ascii() || !said.contains('\u{1b}'), "{said:?}");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].trim_start().starts_with("i Info →   U  In Use"), "{said}");
    assert!(lines[1].starts_with("IMAGE ") && lines[1].ends_with("EXTRA"), "{said}");
    assert_eq!(lines[2], "again:1");
    assert!(lines[3].starts_with("base:1 "), "{said}");
    assert!(lines[4].starts_with("└─ linux/"), "{said}");
    assert!(lines[5].starts_with("team/app:1 ") && lines[5].ends_with(" U"), "{said}");
}
