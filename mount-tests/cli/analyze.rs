//! What the layers of an image waste.

use crate::common::{Session, Who, script};

/// Returns a session with `app:1`: a file written again, and a directory removed.
fn with_waste(who: Who) -> Session {
    let session = Session::new(who);
    let base = "mkdir -p etc usr && head -c 6000 /dev/zero > usr/large && echo x > usr/x
                head -c 3000 /dev/zero > etc/conf && echo keep > etc/keep";
    script(base, &session.dir("image"));
    session.run(&["import", "image", "base:1"]);
    let mount = session.dir("work");
    session.run(&["create", "--name", "work", "base:1"]);
    session.run(&["mount", "work", "work"]);
    let change = "rm -r usr && head -c 1000 /dev/zero > etc/conf && echo new > etc/new";
    who.act(|| script(change, &mount));
    session.unmount("work");
    session.run(&["commit", "work", "app:1"]);
    session
}

#[test]
fn what_is_written_again_or_removed_is_wasted() {
    for who in [Who::Root, Who::User] {
        let session = with_waste(who);
        let said = session.run(&["analyze", "app:1"]);
        let words: Vec<Vec<&str>> =
            said.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = [
            &["IMAGE", "app:1"][..],
            &["LAYERS", "2"],
            &["SIZE", "10kB"],
            // Of 3000 + 1000 + 6000 + 2 + 5 + 4 bytes 1000 + 5 + 4 would do.
            &["EFFICIENCY", "10.08%"],
            &["WASTED", "10kB"],
            // 10002 of 1004 bytes.
            &["USER", "WASTED", "996.22%"],
            &[],
            &["COUNT", "BYTES", "PATH"],
            &["2", "6kB", "/usr/large"],
            &["2", "4kB", "/etc/conf"],
            &["2", "2B", "/usr/x"],
        ];
        assert_eq!(words, expected, "{said}");
        let fields = "{{.Layers}} {{.Size}} {{.UserSize}} {{.WastedBytes}} {{range .Wasted}} {{.Path}}{{end}}";
        let said = session.run(&["analyze", "--format", fields, "app:1"]);
        assert_eq!(said, "2 10011 1004 10002  /usr/large /etc/conf /usr/x\n");
    }
}

#[test]
fn rules_decide_the_exit_code() {
    let session = with_waste(Who::User);
    let rules = |image: &str, arguments: &[&str]| {
        let output = session.try_run(&[&["analyze", "--ci", image], arguments].concat());
        let is_rule = |line: &&str| ["PASS", "FAIL", "SKIP"].contains(&&line[..4.min(line.len())]);
        let said: Vec<_> = output.stdout.lines().filter(is_rule).map(str::to_owned).collect();
        (output.code, said)
    };
    let expected = [
        "FAIL  lowest-efficiency: 0.1008, at least 0.9",
        "SKIP  highest-wasted-bytes: disabled",
        "FAIL  highest-user-wasted-percent: 9.9622, at most 0.1",
    ];
    assert_eq!(rules("app:1", &[]), (1, expected.map(str::to_owned).to_vec()));
    let others = ["--lowest-efficiency=0.1", "--highest-user-wasted-percent=off"];
    for (limit, code, word) in [("10002", 0, "PASS"), ("10.001kB", 1, "FAIL")] {
        let (found, said) =
            rules("app:1", &[&others[..], &["--highest-wasted-bytes", limit]].concat());
        assert_eq!((found, &said[1][..4]), (code, word), "{said:?}");
    }
    assert_eq!(rules("base:1", &[]).0, 0);
    let json = session.try_run(&["analyze", "--ci", "--format", "json", "app:1"]);
    assert_eq!(json.code, 1);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document["Rules"][0]["Status"], "FAIL");
}

#[test]
fn words_that_make_no_sense_are_refused() {
    let session = Session::new(Who::User);
    session.import("base:1");
    for (arguments, said) in [
        (&["analyze", "--lowest-efficiency", "0.5", "base:1"][..], "--ci"),
        (&["analyze", "--ci", "--lowest-efficiency", "90", "base:1"], "\"90\" is not from 0 to 1"),
        (&["analyze", "--ci", "--highest-wasted-bytes", "2XB", "base:1"], "\"2XB\" is no size"),
        (&["analyze", "nope"], "No such image: nope:latest"),
        (&["analyze", "--format", "{{.Nope}}", "base:1"], "no entry for key \"Nope\""),
    ] {
        let refused = session.refused(arguments);
        assert!(refused.contains(said), "{arguments:?}: {refused}");
    }
}
