//! Logging in to a registry that wants user and password, and out.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::secured::{self, PASSWORD, USER};
use crate::common::{Output, Session, Who, base64, no_beginning, run, spawn};

const CLEAR: &str = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n";

/// Runs the program with a text on its standard input.
fn with_input(session: &Session, arguments: &[&str], text: &str) -> Output {
    let mut command = session.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(&mut command);
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn config(session: &Session) -> Value {
    let file = session.path(".docker/config.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn a_login_is_kept_where_docker_keeps_it_and_used() {
    let registry = secured::with_login();
    let host = registry.host();
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        let file = session.dir(".docker").join("config.json");
        fs::write(&file, json!({"psFormat": "x", "auths": {"b.io": {}}}).to_string()).unwrap();
        let words = ["login", "-u", USER, "--password-stdin", host];
        let output = with_input(&session, &words, &format!("{PASSWORD}\n"));
        assert_eq!((output.code, output.stdout.as_str()), (0, "Login Succeeded\n"));
        let warning = format!("stored unencrypted in '{}'", file.display());
        assert!(output.stderr.contains(&warning), "{}", output.stderr);
        let auth = base64(format!("{USER}:{PASSWORD}").as_bytes());
        let expected = json!({"psFormat": "x", "auths": {"b.io": {}, host: {"auth": auth}}});
        assert_eq!(config(&session), expected);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        let name = registry.image("demo:1");
        session.import(&name);
        session.run(&["push", "-q", &name]);
        let said = session.run(&["login", host]);
        assert_eq!(said, "Authenticating with existing credentials...\nLogin Succeeded\n");
        let said = session.run(&["logout", host]);
        assert_eq!(said, format!("Removing login credentials for {host}\n"));
        assert_eq!(config(&session), json!({"psFormat": "x", "auths": {"b.io": {}}}));
        let said = session.refused(&["push", "-q", &name]);
        assert!(said.contains(&format!("run 'strata login {host}'")), "{said}");
    }
}

#[test]
fn a_login_that_the_registry_does_not_take_is_not_kept() {
    let registry = secured::with_login();
    let session = Session::new(Who::User);
    let output = session.try_run(&["login", "-u", USER, "-p", "wrong", registry.host()]);
    let expected = format!(
        "{CLEAR}Error: login attempt to http://{}/v2/ failed with status: 401 Unauthorized\n",
        registry.host()
    );
    assert_eq!((output.code, output.stdout.as_str(), output.stderr), (1, "", expected));
    assert!(!session.path(".docker/config.json").exists());
}

#[test]
fn a_token_server_decides_over_a_login() {
    let (registry, _tokens) = secured::with_tokens();
    let session = Session::new(Who::User);
    let host = registry.host();
    session.refused(&["login", "-u", USER, "-p", "wrong", host]);
    assert_eq!(session.run(&["login", "-u", USER, "-p", PASSWORD, host]), "Login Succeeded\n");
    session.import(&registry.image("team/demo:1"));
    session.run(&["push", "-q", &registry.image("team/demo:1")]);
}

#[test]
fn a_credential_helper_keeps_the_login() {
    let registry = secured::with_login();
    let host = registry.host();
    for key in ["credsStore", "credHelpers"] {
        let session = Session::new(Who::User);
        let helper = session.dir("bin").join("docker-credential-test");
        {
            let _guard = no_beginning();
            let script = "#!/bin/sh\n{ echo \"$1\"; cat; echo; } >>\"$HOME/bin/asked\"\n";
            fs::write(&helper, script).unwrap();
            fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let value = if key == "credsStore" { json!("test") } else { json!({host: "test"}) };
        fs::write(session.dir(".docker").join("config.json"), json!({key: value}).to_string())
            .unwrap();
        let path = format!("{}:/usr/bin:/bin", session.path("bin").display());
        let mut command = session.command(&["login", "-u", USER, "-p", PASSWORD, host]);
        let output = run(command.env("PATH", &path));
        assert_eq!((output.code, output.stdout.as_str()), (0, "Login Succeeded\n"));
        assert_eq!(output.stderr, CLEAR);
        assert_eq!(config(&session), json!({key: value, "auths": {host: {}}}));
        let output = run(session.command(&["logout", host]).env("PATH", &path));
        assert_eq!(output.code, 0, "{}", output.stderr);
        let asked = fs::read_to_string(session.path("bin/asked")).unwrap();
        let expected = format!(
            "store\n{}\nerase\n{host}\n",
            json!({"ServerURL": host, "Username": USER, "Secret": PASSWORD})
        );
        assert_eq!(asked, expected);
        let output = session.try_run(&["logout", host]);
        let said = "Error: credential helper docker-credential-test: ";
        assert!(output.code == 1 && output.stderr.starts_with(said), "{}", output.stderr);
    }
}

#[test]
fn a_login_that_cannot_be_asked_for_is_told_as_docker_tells_it() {
    let session = Session::new(Who::User);
    for (words, said) in [
        (
            &["login", "localhost:1", "--password-stdin"][..],
            "the --password-stdin option requires --username to be set\n",
        ),
        (
            &["login", "-u", "a", "-p", "b", "--password-stdin", "localhost:1"],
            "conflicting options: cannot specify both --password and --password-stdin\n",
        ),
        (
            &["login", "localhost:1"],
            "Error: Cannot perform an interactive login from a non TTY device\n",
        ),
        (
            &["login", "-u", "a", "localhost:1"],
            "Error: Cannot perform an interactive login from a non TTY device\n",
        ),
        (
            &["login", "no host"],
            "Error: \"no host\" is not the address of a registry; expected HOST or HOST:PORT\n",
        ),
    ] {
        let output = session.try_run(words);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (1, "", said));
    }
    let said = session.run(&["logout"]);
    assert_eq!(said, "Removing login credentials for https://index.docker.io/v1/\n");
}
