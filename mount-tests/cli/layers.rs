//! What the layers of an image hold and hide, and which has made a file what it is.

use std::fs;

use crate::common::{Session, Who, script};

/// Returns a session with `app:1` of three layers: files, a mode and a content changed, files gone.
fn with_layers(who: Who) -> Session {
    let session = Session::new(who);
    let base = "mkdir -p etc usr && echo one > etc/one && echo two > etc/two && ln -s one etc/link
                head -c 9000 /dev/zero > usr/large && ln usr/large usr/twin && echo x > usr/x";
    script(base, &session.dir("image"));
    session.run(&["import", "-m", "files", "image", "step:0"]);
    let changes = [
        "chmod 600 etc/one && echo other > etc/two && echo new > etc/new",
        "rm -r usr && rm etc/new && touch -d @1 etc/two",
    ];
    for (number, change) in changes.iter().enumerate() {
        let (from, to) = (format!("step:{number}"), format!("step:{}", number + 1));
        let mount = session.dir("work");
        session.run(&["create", "--name", "work", &from, "step", &number.to_string()]);
        session.run(&["mount", "work", "work"]);
        who.act(|| script(change, &mount));
        session.run(&["commit", "work", &to]);
        session.unmount("work");
        session.run(&["rm", "work"]);
    }
    session.run(&["tag", "step:2", "app:1"]);
    session
}

/// Returns the cells of the lines below the header, which columns of blanks separate.
fn cells(table: &str) -> Vec<Vec<&str>> {
    let row = |line| str::split(line, "   ").map(str::trim).filter(|cell| !cell.is_empty());
    table.lines().skip(1).map(|line| row(line).collect()).collect()
}

#[test]
fn layers_are_listed_with_what_they_hold_and_hide() {
    for who in [Who::Root, Who::User] {
        let session = with_layers(who);
        let said = session.run(&["layers", "app:1"]);
        let rows = cells(&said);
        let ids = session.run(&["layers", "-q", "app:1"]);
        let ids: Vec<_> = ids.lines().collect();
        assert_eq!(rows.len(), 3, "{said}");
        assert_eq!(rows[0], ["1", ids[0], "9.01kB", "8", "-", "files"], "{said}");
        assert_eq!(rows[1][..3], ["2", ids[1], "14B"], "{said}");
        assert_eq!(rows[1][4..], ["2 files, 8B", "step 0"], "{said}");
        assert_eq!(rows[2][..3], ["3", ids[2], "6B"], "{said}");
        // A file with two names counts once.
        assert_eq!(rows[2][4..], ["4 files, 9.01kB", "step 1"], "{said}");
        let whole = session.run(&["layers", "-q", "--no-trunc", "app:1"]);
        let inspected = session.run(&["inspect", "app:1"]);
        assert!(whole.lines().all(|id| inspected.contains(id)), "{whole}");
    }
}

#[test]
fn a_file_is_told_by_who_last_changed_its_content_and_its_attributes() {
    let session = with_layers(Who::Root);
    let said = session.run(&["blame", "app:1:/etc"]);
    let expected = [
        ["1", "1", "files", "/etc/link"],
        ["1", "2", "files", "/etc/one"],
        ["2", "3", "step 0", "/etc/two"],
    ];
    assert_eq!(cells(&said), expected, "{said}");
    let said = session.run(&["blame", "app:1:/etc/one"]);
    assert_eq!(cells(&said), [expected[1]], "{said}");
    let said = session.run(&["blame", "-r", "app:1"]);
    let paths: Vec<_> = cells(&said).iter().map(|row| *row.last().unwrap()).collect();
    assert_eq!(paths, ["/", "/etc", "/etc/link", "/etc/one", "/etc/two"]);
    assert_eq!(cells(&said)[1], ["-", "1", "files", "/etc"], "{said}");
    for (place, text) in [
        ("app:1:/usr", "Could not find the file /usr in app:1"),
        ("none:1:/etc", "No such image: none:1"),
    ] {
        assert!(session.refused(&["blame", place]).contains(text));
    }
}

#[test]
fn a_directory_without_entries_has_no_lines() {
    let session = Session::new(Who::User);
    fs::create_dir(session.dir("image").join("empty")).unwrap();
    session.run(&["import", "image", "base:1"]);
    assert_eq!(cells(&session.run(&["blame", "base:1:/empty"])), Vec::<Vec<&str>>::new());
}
