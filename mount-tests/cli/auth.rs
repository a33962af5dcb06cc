//! Registries that trust not everyone, and that not everyone trusts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::common::secured::{self, PASSWORD, USER};
use crate::common::{Output, Registry, Session, Who, base64, no_beginning, run};

/// A port of this machine, at an address that strata does not take for loopback: its certificate
/// must be good.
fn far_away(host: &str) -> String {
    host.replace("127.0.0.1", "127.1")
}

/// Stores a login as docker does.
fn log_in(session: &Session, host: &str, password: &str) {
    let auth = base64(format!("{USER}:{password}").as_bytes());
    write_config(session, &json!({"auths": {host: {"auth": auth}}}));
}

fn write_config(session: &Session, config: &serde_json::Value) {
    fs::write(session.dir(".docker").join("config.json"), config.to_string()).unwrap();
}

/// Puts a credential helper into the session's `bin`, which knows the login.
fn install_helper(session: &Session) {
    let script = format!(
        "#!/bin/sh\nread -r server\necho \"$1 $server\" >>\"$HOME/bin/asked\"\nprintf \
         '{{\"ServerURL\":\"%s\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}' \"$server\"\n"
    );
    let file = session.dir("bin").join("docker-credential-test");
    let _guard = no_beginning();
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the program with the session's `bin` in its path.
fn with_helper(session: &Session, arguments: &[&str]) -> Output {
    let path = format!("{}:/usr/bin:/bin", session.path("bin").display());
    run(session.command(arguments).env("PATH", path))
}

/// Runs the program where nobody is trusted, as on a machine without ca-certificates.
fn without_authorities(session: &Session, arguments: &[&str]) -> Output {
    let mut command = session.command(arguments);
    run(command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", session.path("none")))
}

/// Pushes an image and pulls it into another store.
fn push_and_pull(session: &Session, name: &str) {
    session.import(name);
    session.run(&["push", name]);
    session.run(&["rmi", name]);
    session.run(&["pull", name]);
}

#[test]
fn a_registry_with_an_unknown_authority_is_refused() {
    let (registry, _) = secured::with_tls();
    let session = Session::new(Who::User);
    let host = far_away(registry.host());
    let other = session.dir("other");
    secured::make_authority(&other);
    let mut command = session.command(&["pull", &format!("{host}/demo:1")]);
    let said = run(command.env("SSL_CERT_FILE", other.join("ca.pem"))).stderr;
    let expected = format!(
        "Error: Get \"https://{host}/v2/\": tls: failed to verify certificate: x509: certificate \
         signed by unknown authority"
    );
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.contains("certs.d"), "{said}");
}

#[test]
fn an_authority_is_trusted_through_certs_d_or_the_environment() {
    let (registry, certificate) = secured::with_tls();
    let host = far_away(registry.host());
    let name = format!("{host}/demo:1");
    for folder in [".docker/certs.d", ".config/containers/certs.d"] {
        let session = Session::new(Who::User);
        fs::write(session.dir(&format!("{folder}/{host}")).join("ca.crt"), &certificate).unwrap();
        push_and_pull(&session, &name);
    }
    let session = Session::new(Who::User);
    fs::write(session.path("ca.pem"), &certificate).unwrap();
    let mut command = session.command(&["pull", "-q", &name]);
    let output = run(command.env("SSL_CERT_FILE", session.path("ca.pem")));
    assert_eq!((output.stdout, output.code), (format!("{name}\n"), 0), "{}", output.stderr);
}

#[test]
fn plain_http_on_this_machine_needs_no_authority() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    let name = registry.image("demo:1");
    session.import(&name);
    for arguments in [["push", &name], ["rmi", &name], ["pull", &name]] {
        let output = without_authorities(&session, &arguments);
        assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
    }
    let said = without_authorities(&session, &["pull", "127.1:1/demo:1"]).stderr;
    assert!(said.contains("no certificate authorities found on this machine"), "{said}");
}

#[test]
fn an_authority_in_certs_d_needs_no_other() {
    let (registry, certificate) = secured::with_tls();
    let host = far_away(registry.host());
    let session = Session::new(Who::User);
    let folder = session.dir(&format!(".docker/certs.d/{host}"));
    fs::write(folder.join("ca.crt"), certificate).unwrap();
    let name = format!("{host}/demo:1");
    session.import(&name);
    let output = without_authorities(&session, &["push", &name]);
    assert_eq!(output.code, 0, "{}", output.stderr);
}

#[test]
fn an_insecure_registry_is_trusted_whoever_vouches_for_it() {
    let (registry, _) = secured::with_tls();
    let host = far_away(registry.host());
    let session = Session::new(Who::User);
    let name = format!("{host}/demo:1");
    session.import(&name);
    session.run(&["--insecure-registry", &host, "push", &name]);
    let near = registry.image("demo:1");
    session.run(&["pull", &near]);
}

#[test]
fn another_authority_in_certs_d_is_not_trusted_even_on_loopback() {
    let (registry, _) = secured::with_tls();
    let session = Session::new(Who::User);
    let folder = session.dir(&format!(".docker/certs.d/{}", registry.host()));
    secured::make_authority(&folder);
    fs::rename(folder.join("ca.pem"), folder.join("ca.crt")).unwrap();
    let said = session.refused(&["pull", &registry.image("demo:1")]);
    assert!(said.contains("x509: certificate signed by unknown authority"), "{said}");
    fs::write(folder.join("ca.crt"), "no certificate").unwrap();
    let said = session.refused(&["pull", &registry.image("demo:1")]);
    assert!(said.contains("ca.crt"), "{said}");
}

#[test]
fn the_login_of_docker_is_used_for_pull_and_push() {
    let registry = secured::with_login();
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        log_in(&session, registry.host(), PASSWORD);
        push_and_pull(&session, &registry.image("demo:1"));
    }
}

#[test]
fn the_login_of_podman_is_used() {
    let registry = secured::with_login();
    let session = Session::new(Who::User);
    log_in(&session, registry.host(), PASSWORD);
    let file = session.dir(".config/containers").join("auth.json");
    fs::rename(session.path(".docker/config.json"), &file).unwrap();
    push_and_pull(&session, &registry.image("demo:1"));
}

#[test]
fn a_credential_helper_is_asked_for_the_login() {
    let registry = secured::with_login();
    let configs = [
        json!({"credHelpers": {registry.host(): "test"}}),
        json!({"credsStore": "test"}),
        json!({"auths": {registry.host(): {}}, "credsStore": "test"}),
    ];
    for config in configs {
        let session = Session::new(Who::User);
        install_helper(&session);
        write_config(&session, &config);
        let name = registry.image("demo:1");
        session.import(&name);
        let output = with_helper(&session, &["push", &name]);
        assert_eq!(output.code, 0, "{config}: {}", output.stderr);
        let asked = fs::read_to_string(session.path("bin/asked")).unwrap();
        assert_eq!(asked, format!("get {}\n", registry.host()), "{config}");
    }
}

#[test]
fn a_credential_helper_that_is_missing_is_named() {
    let registry = secured::with_login();
    let session = Session::new(Who::User);
    write_config(&session, &json!({"credsStore": "test"}));
    let said = session.refused(&["pull", &registry.image("demo:1")]);
    assert!(said.contains(".docker/config.json") && said.contains("helper"), "{said}");
}

#[test]
fn without_a_login_or_with_a_wrong_one_the_way_in_is_told() {
    let registry = secured::with_login();
    let session = Session::new(Who::User);
    let name = registry.image("demo:1");
    session.import(&name);
    let hint = format!("run 'strata login {0}' to use {0}/demo\n", registry.host());
    for password in ["", "wrong"] {
        if !password.is_empty() {
            log_in(&session, registry.host(), password);
        }
        for verb in ["pull", "push"] {
            let said = session.refused(&[verb, &name]);
            assert!(said.starts_with("Error: unauthorized: authentication required"), "{said}");
            assert!(said.ends_with(&hint), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[test]
fn a_token_is_fetched_for_pull_and_push() {
    let (registry, tokens) = secured::with_tokens();
    let session = Session::new(Who::User);
    log_in(&session, registry.host(), PASSWORD);
    push_and_pull(&session, &registry.image("team/demo:1"));
    let asked = tokens.requests(|_| true);
    // One for what a command reads and one for what it writes, however many requests follow.
    assert!((2..=3).contains(&asked.len()), "{asked:?}");
    let other = registry.image("other/demo:1");
    session.run(&["tag", &registry.image("team/demo:1"), &other]);
    let said = session.run(&["push", &other]);
    assert!(said.contains(": Mounted from team/demo\n"), "{said}");
}

#[test]
fn without_a_login_a_token_may_be_good_for_pulling_alone() {
    let (registry, _tokens) = secured::with_tokens();
    let session = Session::new(Who::User);
    let name = registry.image("team/demo:1");
    log_in(&session, registry.host(), PASSWORD);
    session.import(&name);
    session.run(&["push", &name]);
    fs::remove_file(session.path(".docker/config.json")).unwrap();
    session.run(&["pull", &name]);
    session.run(&["tag", &name, &registry.image("team/other:1")]);
    let said = session.refused(&["push", &registry.image("team/other:1")]);
    assert_eq!(said, "Error: denied: requested access to the resource is denied\n");
}

#[test]
fn a_password_that_the_token_server_refuses_is_told() {
    let (registry, _tokens) = secured::with_tokens();
    let session = Session::new(Who::User);
    log_in(&session, registry.host(), "wrong");
    let said = session.refused(&["pull", &registry.image("team/demo:1")]);
    assert!(said.contains("unauthorized: incorrect username or password"), "{said}");
    assert!(said.contains("strata login"), "{said}");
}
