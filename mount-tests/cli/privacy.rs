//! Who may read what: other users of the machine, and whoever reads what strata writes, prints or hands
//! to other programs. `SECURITY.md` says what is promised.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::common::secured::{self, PASSWORD, USER};
use crate::common::{
    Fault, Faults, Output, Session, Who, base64, mounts_below, no_beginning, noise, run, run_alone,
    script, spawn,
};

/// Neither root nor the user of the sessions.
const STRANGER: u32 = 12345;

/// Runs a line of the shell as a stranger.
fn stranger(line: &str, folder: &Path) -> Output {
    let mut command = Command::new("sh");
    run(command.args(["-c", line]).current_dir(folder).uid(STRANGER).gid(STRANGER))
}

/// Returns all files below a folder, directories included.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            found.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn a_stranger_reaches_nothing_of_a_store() {
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        fs::write(session.dir("root").join("large"), noise(100_000)).unwrap();
        session.run(&["import", "root", "large:1"]);
        session.run(&["create", "--name", "box", "large:1"]);
        session.dir("mount");
        session.run(&["mount", "box", "mount"]);
        let write = "echo changed > mount/file; echo more >> mount/large";
        assert_eq!(
            run(who.run(Command::new("sh").args(["-c", write]).current_dir(session.path("")))).code,
            0
        );
        let store = session.path("store");
        assert_eq!(fs::metadata(&store).unwrap().mode() & 0o777, 0o700);
        let files = below(&store);
        assert!(files.len() > 270, "{}", files.len());
        for file in &files {
            let object = file.starts_with(store.join("objects")) && file.is_file();
            let mode = file.symlink_metadata().unwrap().mode();
            assert!(!object || mode & 0o777 == 0o444, "{} has {mode:o}", file.display());
            assert_eq!(mode & 0o6000, 0, "{}", file.display());
        }
        let listed: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
        fs::write(session.path("listed"), listed).unwrap();
        // Whether a file could be read, written, or at least be seen.
        let line = "while read -r file; do
                for what in 'cat' 'ls -d' 'stat' 'readlink'; do
                    $what \"$file\" 2>/dev/null && echo \"$what $file\"
                done
                ( : >>\"$file\" ) 2>/dev/null && echo \"wrote $file\"
            done <listed; ls store";
        let reached = stranger(line, &session.path(""));
        assert_eq!(reached.stdout, "");
        assert!(reached.stderr.contains("Permission denied"), "{}", reached.stderr);
        session.unmount("mount");
    }
}

#[test]
fn a_mount_is_its_users_alone_unless_others_were_let_in() {
    let session = Session::new(Who::User);
    session.import("image");
    session.dir("mount");
    session.run(&["mount", "image", "mount"]);
    let look = "ls mount; cat mount/file; stat mount/file";
    let seen = stranger(look, &session.path(""));
    assert_eq!(seen.stdout, "");
    // Not even root.
    let root = run(Command::new("sh").args(["-c", look]).current_dir(session.path("")));
    assert_eq!(root.stdout, "");
    session.unmount("mount");
    // Others are let in where the administrator permits it.
    let output = session.try_run(&["mount", "-o", "allow_other", "image", "mount"]);
    let configuration = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if configuration.lines().any(|line| line.trim() == "user_allow_other") {
        assert!(stranger(look, &session.path("")).stdout.contains("content\n"));
        session.unmount("mount");
    } else {
        assert!(output.stderr.contains("only allowed if 'user_allow_other' is set"), "{output:?}");
    }
}

/// Returns the options that the kernel has for the mount in a session.
fn mount_options(session: &Session) -> String {
    let target = session.path("mount");
    let text = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = text.lines().find(|line| line.split(' ').nth(1) == target.to_str());
    line.expect("it is mounted").split(' ').nth(3).unwrap().to_owned()
}

#[test]
fn set_uid_and_devices_of_an_image_have_no_effect_unless_asked_for() {
    let session = Session::new(Who::Root);
    script(
        "mkdir root && cp /usr/bin/id root/id && chmod 4755 root/id
         mknod root/null c 1 3 && chmod 666 root/null",
        &session.path(""),
    );
    session.run(&["import", "root", "image"]);
    session.dir("mount");
    let (root, own) = ("0\n".to_owned(), format!("{STRANGER}\n"));
    for (options, uid, has_devices) in [
        (&[][..], &own, false),
        (&["-o", "defaults"], &own, false),
        (&["-o", "suid"], &root, false),
        (&["-o", "dev"], &own, true),
        (&["-o", "suid,dev"], &root, true),
        (&["-o", "suid,dev", "-o", "nosuid,nodev"], &own, false),
    ] {
        let words = [&["mount"], options, &["image", "mount"]].concat();
        session.run(&words);
        let known = mount_options(&session);
        assert_eq!(known.contains("nosuid"), uid == &own, "{options:?}: {known}");
        assert_eq!(known.contains("nodev"), !has_devices, "{options:?}: {known}");
        assert_eq!(&stranger("mount/id -u", &session.path("")).stdout, uid, "{options:?}");
        let written = stranger("echo x >mount/null", &session.path(""));
        assert_eq!(written.code == 0, has_devices, "{options:?}: {}", written.stderr);
        session.unmount("mount");
    }
    // An ordinary user cannot ask for them.
    let user = Session::new(Who::User);
    user.import("image");
    user.dir("mount");
    user.run(&["mount", "-o", "suid,dev", "image", "mount"]);
    let known = mount_options(&user);
    assert!(known.contains("nosuid") && known.contains("nodev"), "{known}");
    user.unmount("mount");
}

#[test]
fn an_overlay_of_directories_by_root_has_both_as_other_drivers_have() {
    let session = Session::new(Who::Root);
    session.dir("lower");
    session.dir("mount");
    session.run(&["overlay", "-o", "lowerdir=lower", "mount"]);
    let known = mount_options(&session);
    assert!(!known.contains("nosuid") && !known.contains("nodev"), "{known}");
    session.detach(&session.path("mount"));
}

#[test]
fn a_store_that_was_opened_to_others_is_told() {
    let session = Session::new(Who::User);
    let store = session.dir("store");
    fs::set_permissions(&store, Permissions::from_mode(0o777)).unwrap();
    // What is empty is made a store, and its user's alone.
    assert_eq!(session.try_run(&["images", "-q"]), Output::default());
    assert_eq!(fs::metadata(&store).unwrap().mode() & 0o777, 0o700);
    for (mode, expected) in [
        (0o700, ""),
        (0o755, "can be read by other users (mode 755)"),
        (0o750, "can be read by other users (mode 750)"),
        (0o770, "can be changed by other users (mode 770)"),
        (0o702, "can be changed by other users (mode 702)"),
    ] {
        fs::set_permissions(&store, Permissions::from_mode(mode)).unwrap();
        let output = session.try_run(&["images", "-q"]);
        assert_eq!((output.code, output.stdout.as_str()), (0, ""));
        assert_eq!(output.stderr.is_empty(), expected.is_empty(), "{}", output.stderr);
        assert!(output.stderr.contains(expected), "{}", output.stderr);
        // It is told, and not taken back.
        assert_eq!(fs::metadata(&store).unwrap().mode() & 0o777, mode);
    }
    fs::set_permissions(&store, Permissions::from_mode(0o700)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
    let output = run(command.args(["images", "-q"]).env("STRATA_ROOT", &store));
    assert!(output.stderr.contains("belongs to user 65534"), "{}", output.stderr);
}

/// What must be nowhere: a password, and the ways in which logins are written.
fn secrets() -> Vec<String> {
    let pair = format!("{USER}:{PASSWORD}");
    vec![PASSWORD.to_owned(), base64(pair.as_bytes()), base64(PASSWORD.as_bytes())]
}

#[track_caller]
fn has_no_secret(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for secret in secrets() {
        assert!(!text.contains(&secret), "{what} has {secret}: {text}");
    }
}

/// Puts programs before those of the machine, each of which writes down how it was called and then is
/// what it stands for.
fn watched(session: &Session) -> PathBuf {
    let bin = session.dir("bin");
    let notes = session.path("calls");
    fs::write(&notes, "").unwrap();
    fs::set_permissions(&notes, Permissions::from_mode(0o666)).unwrap();
    let note = format!("{{ tr '\\0' ' ' </proc/$$/cmdline; env; echo; }} >>{}", notes.display());
    let helper = format!(
        "#!/bin/sh\n{note}\nread -r host\n[ \"$1\" = get ] || exit 0\n\
         echo '{{\"Username\": \"{USER}\", \"Secret\": \"{PASSWORD}\"}}'\n"
    );
    let fuse = format!("#!/bin/sh\n{note}\nexec /usr/bin/fusermount3 \"$@\"\n");
    // A program that is open for writing in a process that begins cannot be run.
    let _guard = no_beginning();
    for (name, text) in [("docker-credential-planted", helper), ("fusermount3", fuse)] {
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    bin
}

/// Returns the program with all that it can log.
fn talkative(session: &Session, arguments: &[&str]) -> Command {
    let mut command = session.command(arguments);
    command.env("STRATA_LOG", "trace").env("RUST_LOG", "trace");
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", session.path("bin").display());
    command.env("PATH", path);
    command
}

/// Runs the program with all that it can log, and checks what it says.
fn loud(session: &Session, arguments: &[&str], input: &str) -> Output {
    let mut command = talkative(session, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(&mut command);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    checked(
        arguments,
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
    )
}

/// Checks that what a command has said has no secret in it.
fn checked(arguments: &[&str], output: Output) -> Output {
    let said = [output.stdout.as_bytes(), output.stderr.as_bytes()].concat();
    has_no_secret(&format!("{arguments:?}"), &said);
    output
}

#[test]
fn a_login_is_in_no_message_log_argument_or_file_but_its_own() {
    for kept in ["file", "helper"] {
        let (registry, tokens) = secured::with_tokens();
        let basic = secured::with_login();
        let session = Session::new(Who::User);
        watched(&session);
        let docker = session.dir(".docker").join("config.json");
        if kept == "helper" {
            fs::write(&docker, r#"{"credsStore": "planted"}"#).unwrap();
        }
        for host in [registry.host(), basic.host()] {
            let words = ["login", "-u", USER, "--password-stdin", host];
            assert_eq!(loud(&session, &words, PASSWORD).code, 0);
            session.import(&format!("{host}/demo:1"));
            assert_eq!(loud(&session, &["push", &format!("{host}/demo:1")], "").code, 0);
            assert_eq!(loud(&session, &["rmi", &format!("{host}/demo:1")], "").code, 0);
            let image = format!("{host}/demo:1");
            assert_eq!(loud(&session, &["pull", &image], "").code, 0);
            assert_eq!(loud(&session, &["login", host], "").code, 0);
            for wrong in [format!("{host}/none:1"), format!("{host}/demo:none")] {
                assert_eq!(loud(&session, &["pull", &wrong], "").code, 1);
            }
            session.dir("mount");
            assert_eq!(
                loud(&session, &["mount", "--rw", "--name", "box", &image, "mount"], "").code,
                0
            );
            fs::metadata(session.path("mount")).unwrap_err();
            assert_eq!(loud(&session, &["commit", "box", "committed:1"], "").code, 0);
            let umount = ["umount", "mount"];
            let output = checked(&umount, run_alone(&mut talkative(&session, &umount)));
            assert_eq!(output.code, 0, "{}", output.stderr);
            for words in [
                &["history", "--no-trunc", "committed:1"][..],
                &["inspect", "committed:1", "box"],
                &["info"],
                &["doctor"],
            ] {
                loud(&session, words, "");
            }
            session.run(&["rm", "box"]);
            session.run(&["rmi", "committed:1", &image]);
        }
        // Somebody in between who answers nonsense, and leads elsewhere.
        let elsewhere = Faults::alone(|_| Fault::answer(500, "{}"));
        let target = format!("http://{}/elsewhere", elsewhere.host());
        for fault in [
            Fault::Cut(3),
            Fault::Damage,
            Fault::error(403, "DENIED", "no"),
            Fault::answer(307, "").with("location", &target),
        ] {
            let proxy = Faults::before(basic.host(), move |request| match request.line.as_str() {
                "GET /v2/" => Fault::None,
                _ => fault.clone(),
            });
            let auths = json!({"auths": {proxy.host(): {"username": USER, "password": PASSWORD}}});
            let logins = session.path("logins.json");
            fs::write(&logins, auths.to_string()).unwrap();
            let mut command = session.command(&["pull", &proxy.image("demo:1")]);
            command.env("REGISTRY_AUTH_FILE", &logins).env("STRATA_LOG", "trace");
            let output = run(command.env("DOCKER_CONFIG", session.path("none")));
            assert_eq!(output.code, 1);
            has_no_secret("a pull that fails", [output.stdout, output.stderr].concat().as_bytes());
            fs::remove_file(logins).unwrap();
        }
        for request in elsewhere.requests(|_| true) {
            has_no_secret("a request elsewhere", format!("{request:?}").as_bytes());
        }
        has_no_secret("the calls", &fs::read(session.path("calls")).unwrap());
        let calls = fs::read_to_string(session.path("calls")).unwrap();
        assert!(calls.contains("fusermount3") && (kept == "file" || calls.contains("planted get")));
        for file in below(&session.path("")).iter().filter(|file| file.is_file()) {
            let is_its_own = *file == docker || file.ends_with("bin/docker-credential-planted");
            if !is_its_own {
                has_no_secret(&file.display().to_string(), &fs::read(file).unwrap());
            }
        }
        assert_eq!(fs::metadata(&docker).unwrap().mode() & 0o077, 0);
        drop(tokens);
        assert_eq!(mounts_below(&session.path("")), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_login_in_a_url_is_nowhere_afterwards() {
    let session = Session::new(Who::User);
    session.dir("bin");
    script(
        "mkdir root && echo content >root/file && tar -cf layer.tar -C root .",
        &session.path(""),
    );
    let tar = fs::read(session.path("layer.tar")).unwrap();
    let server = Faults::alone(move |request| match request.line.as_str() {
        "GET /layer.tar" | "GET /layer.tar?signature=x" => {
            Fault::Answer(200, Vec::new(), tar.clone())
        }
        _ => Fault::answer(404, "no"),
    });
    let host = server.host();
    let url = |path: &str| format!("http://{USER}:{PASSWORD}@{host}/{path}");
    let good = loud(&session, &["import", &url("layer.tar?signature=x"), "a:1"], "");
    assert_eq!(good.code, 0, "{}", good.stderr);
    assert_eq!(loud(&session, &["append", "a:1", &url("layer.tar"), "-t", "a:2"], "").code, 0);
    for wrong in [url("none"), url(""), format!("http://{USER}:{PASSWORD}@127.0.0.1:1/x")] {
        assert_eq!(loud(&session, &["import", &wrong], "").code, 1);
        assert_eq!(loud(&session, &["append", "a:1", &wrong], "").code, 1);
    }
    loud(&session, &["inspect", "a:2"], "");
    let said = loud(&session, &["history", "--no-trunc", "a:2"], "").stdout;
    assert_eq!(said.matches(&format!("http://{host}/layer.tar")).count(), 2, "{said}");
    assert!(!said.contains("signature"), "{said}");
    for file in below(&session.path("store")).iter().filter(|file| file.is_file()) {
        has_no_secret(&file.display().to_string(), &fs::read(file).unwrap());
    }
}

#[test]
fn a_saved_image_is_its_users_alone() {
    let session = Session::new(Who::User);
    session.import("image");
    session.run(&["save", "-o", "image.tar", "image"]);
    assert_eq!(fs::metadata(session.path("image.tar")).unwrap().mode() & 0o777, 0o600);
    session.run(&["create", "--name", "image", "image"]);
    for command in ["save", "export"] {
        let said = session.refused(&[command, "-o", "none/deeper/x.tar", "image"]);
        let expected = "Error: invalid output path: directory \"none/deeper\" does not exist\n";
        assert_eq!(said, expected);
    }
}
