//! Pulls that cannot succeed say why, and leave nothing behind.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::json;

use crate::common::{Crafted, Fault, Faults, Registry, Session, Who, run, small};

const HERE: &str = "linux/amd64";

/// Returns all files below the folders of the store that hold what was published or prepared.
fn left_behind(session: &Session) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["blobs", "objects", "layers", "chains", "refs", "staging"] {
        list(&session.path("store").join(folder), &mut found);
    }
    found
}

fn list(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), found);
        } else {
            found.push(entry.path().display().to_string());
        }
    }
}

/// A store that a pull fails in, and a registry with an image that can be pulled.
struct Attempt {
    session: Session,
    registry: Registry,
}

impl Attempt {
    fn new() -> Self {
        let registry = Registry::start();
        registry.put_image("good:1", HERE, &[small("good")]);
        Self { session: Session::new(Who::User), registry }
    }

    /// Pulls an image that cannot be had, and returns what was said.
    #[track_caller]
    fn fails(&self, image: &str, options: &[&str]) -> String {
        let output = run(self.session.command(&["pull", image]).args(options));
        assert_eq!(output.code, 1, "{}{}", output.stdout, output.stderr);
        assert_eq!(left_behind(&self.session), Vec::<String>::new(), "{}", output.stderr);
        assert_eq!(self.session.run(&["images", "-q"]), "");
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        output.stderr
    }

    /// Checks that the store can be used afterwards.
    #[track_caller]
    fn recovers(&self) {
        self.session.run(&["pull", &self.registry.image("good:1")]);
    }

    /// Puts an image of a layer into the registry.
    fn put(&self, layer: &Crafted) -> String {
        self.registry.put_image("demo:1", HERE, std::slice::from_ref(layer));
        self.registry.image("demo:1")
    }
}

#[test]
fn a_blob_that_is_damaged_in_the_registry_is_named() {
    let attempt = Attempt::new();
    let layer = small("file");
    let name = attempt.put(&layer);
    let file = attempt.registry.blob(&layer.digest());
    for damage_at in [0, 20, layer.blob.len() - 1] {
        let mut damaged = layer.blob.clone();
        damaged[damage_at] ^= 0x20;
        fs::write(&file, damaged).unwrap();
        let said = attempt.fails(&name, &[]);
        let begin = format!("Error: layer {} hashes to sha256:", layer.digest());
        assert!(said.starts_with(&begin), "{said}");
        assert!(said.contains(&format!(", expected {};", layer.digest())), "{said}");
    }
    fs::write(&file, &layer.blob).unwrap();
    attempt.session.run(&["pull", &name]);
}

#[test]
fn a_blob_that_is_damaged_on_the_way_is_named() {
    let attempt = Attempt::new();
    let layer = small("file");
    attempt.put(&layer);
    let digest = layer.digest();
    let proxy = Faults::before(attempt.registry.host(), move |request| {
        let first = request.line.ends_with(&digest) && request.before == 0;
        if first { Fault::Damage } else { Fault::None }
    });
    let said = attempt.fails(&proxy.image("demo:1"), &[]);
    assert!(said.contains(&layer.digest()), "{said}");
    attempt.session.run(&["pull", &proxy.image("demo:1")]);
}

#[test]
fn a_blob_that_is_truncated_is_named() {
    let attempt = Attempt::new();
    let layer = small("file");
    let name = attempt.put(&layer);
    let file = attempt.registry.blob(&layer.digest());
    let (digest, whole, half) = (layer.digest(), layer.blob.len(), layer.blob.len() / 2);
    fs::write(&file, &layer.blob[..half]).unwrap();
    let said = attempt.fails(&name, &[]);
    let expected = format!("blob {digest} ended after {half} bytes: expected {whole} (");
    assert!(said.contains(&expected), "{said}");
    fs::write(&file, &layer.blob).unwrap();
    attempt.session.run(&["pull", &name]);
}

#[test]
fn an_image_of_which_one_layer_is_damaged_has_no_name() {
    let attempt = Attempt::new();
    let layers = [small("one"), small("two"), small("three")];
    attempt.registry.put_image("demo:1", HERE, &layers);
    let file = attempt.registry.blob(&layers[2].digest());
    fs::write(&file, b"damage").unwrap();
    let name = attempt.registry.image("demo:1");
    let said = attempt.session.refused(&["pull", &name]);
    assert!(said.contains(&layers[2].digest()), "{said}");
    // A layer that is whole may stay; nothing names it.
    let mut found = left_behind(&attempt.session);
    found.retain(|path| !path.contains("/layers/"));
    assert_eq!(found, Vec::<String>::new());
    fs::write(&file, &layers[2].blob).unwrap();
    attempt.session.run(&["pull", &name]);
}

#[test]
fn a_blob_that_is_gone_is_named() {
    let attempt = Attempt::new();
    let layer = small("file");
    let name = attempt.put(&layer);
    fs::remove_file(attempt.registry.blob(&layer.digest())).unwrap();
    let said = attempt.fails(&name, &[]);
    assert!(said.contains(&format!("blob {} not found in", layer.digest())), "{said}");
    attempt.recovers();
}

#[test]
fn a_configuration_that_is_damaged_is_named() {
    let attempt = Attempt::new();
    let layer = small("file");
    let name = attempt.put(&layer);
    attempt.session.run(&["pull", &name]);
    let found: serde_json::Value =
        serde_json::from_str(&attempt.session.run(&["inspect", &name])).unwrap();
    let id = found[0]["Id"].as_str().expect("an id").to_owned();
    let file = attempt.registry.blob(&id);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("linux", "LINUX")).unwrap();
    let attempt = Attempt { session: Session::new(Who::User), ..attempt };
    let said = attempt.fails(&name, &[]);
    assert!(said.starts_with("Error: image configuration hashes to sha256:"), "{said}");
    assert!(said.contains(&id), "{said}");
    attempt.recovers();
}

#[test]
fn a_manifest_that_is_damaged_is_named() {
    let attempt = Attempt::new();
    let pushed = attempt.registry.put_image("demo:1", HERE, &[small("file")]).digest();
    let proxy = Faults::before(attempt.registry.host(), |request| {
        if request.is_manifest() { Fault::Damage } else { Fault::None }
    });
    for name in [proxy.image("demo:1"), proxy.image(&format!("demo@{pushed}"))] {
        let said = attempt.fails(&name, &[]);
        assert!(said.contains(&pushed) && said.contains(&name), "{said}");
    }
    attempt.recovers();
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let attempt = Attempt::new();
    let (layer, other) = (small("file"), small("other"));
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [other.diff_id]},
    });
    attempt.registry.put_config("demo:1", &config, std::slice::from_ref(&layer));
    let said = attempt.fails(&attempt.registry.image("demo:1"), &[]);
    for named in [&layer.digest(), &layer.diff_id, &other.diff_id] {
        assert!(said.contains(named), "{said}");
    }
    attempt.recovers();
}

#[test]
fn a_configuration_with_other_layers_than_the_manifest_is_refused() {
    let attempt = Attempt::new();
    let config = json!({
        "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []},
    });
    attempt.registry.put_config("demo:1", &config, &[small("file")]);
    let said = attempt.fails(&attempt.registry.image("demo:1"), &[]);
    assert_eq!(said, "Error: image config names 0 layers: the manifest has 1\n");
    attempt.recovers();
}

#[test]
fn an_image_for_another_platform_than_was_asked_for_is_refused() {
    let attempt = Attempt::new();
    let name = attempt.put(&small("file"));
    let said = attempt.fails(&name, &["--platform", "linux/arm64"]);
    let expected = format!(
        "Error: image with reference {name} was found but does not match the specified platform: \
         wanted linux/arm64, actual: linux/amd64\n"
    );
    assert_eq!(said, expected);
    attempt.recovers();
}

#[test]
fn a_tag_or_repository_that_is_not_there_is_told_as_docker_does() {
    let attempt = Attempt::new();
    for image in ["good:2", "missing:1"] {
        let name = attempt.registry.image(image);
        let expected =
            format!("Error: manifest for {name} not found: manifest unknown: manifest unknown\n");
        assert_eq!(attempt.fails(&name, &[]), expected);
    }
    let missing = attempt.registry.image("missing");
    let said = attempt.fails(&missing, &["-a"]);
    assert!(said.contains(&missing), "{said}");
    attempt.recovers();
}

#[test]
fn a_registry_that_denies_is_told_as_docker_does() {
    let attempt = Attempt::new();
    let proxy = Faults::before(attempt.registry.host(), |request| {
        let fault = Fault::error(403, "DENIED", "requested access to the resource is denied");
        if request.is_manifest() { fault } else { Fault::None }
    });
    let said = attempt.fails(&proxy.image("good:1"), &[]);
    let expected = format!(
        "Error: pull access denied for {}, repository does not exist or may require 'docker \
         login': denied: requested access to the resource is denied\n",
        proxy.image("good")
    );
    assert_eq!(said, expected);
    attempt.recovers();
}

#[test]
fn a_registry_that_limits_is_asked_again_when_it_says() {
    let attempt = Attempt::new();
    let proxy = Faults::before(attempt.registry.host(), |request| {
        let busy = Fault::error(429, "TOOMANYREQUESTS", "slow down").with("retry-after", "1");
        let first = request.before == 0 && (request.is_manifest() || request.is_blob());
        if first { busy } else { Fault::None }
    });
    attempt.session.run(&["pull", &proxy.image("good:1")]);
    assert_eq!(proxy.requests(|request| request.is_manifest()).len(), 2);
    assert_eq!(proxy.requests(|request| request.is_blob()).len(), 4);
}

#[test]
fn a_registry_that_limits_for_long_or_always_is_told() {
    let attempt = Attempt::new();
    // (what it says when to come back, how often it is asked)
    for (later, asked) in [("3600", 1), ("0", 5)] {
        let proxy = Faults::before(attempt.registry.host(), move |request| {
            let busy = Fault::error(429, "TOOMANYREQUESTS", "slow down").with("retry-after", later);
            if request.is_manifest() { busy } else { Fault::None }
        });
        let said = attempt.fails(&proxy.image("good:1"), &[]);
        let expected = format!("Error: toomanyrequests: slow down (registry {})\n", proxy.host());
        assert_eq!(said, expected);
        assert_eq!(proxy.requests(|request| request.is_manifest()).len(), asked);
    }
    attempt.recovers();
}

#[test]
fn a_registry_that_is_not_there_is_told_as_docker_does() {
    let attempt = Attempt::new();
    // A port that was free a moment ago; nothing else asks for this one.
    let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = attempt.fails(&format!("{host}/demo:1"), &[]);
    let expected =
        format!("Error: Get \"http://{host}/v2/\": dial tcp {host}: connect: connection refused\n");
    assert_eq!(said, expected);
    attempt.recovers();
}

#[test]
fn what_is_no_registry_is_told() {
    let attempt = Attempt::new();
    for status in [200, 404] {
        let web = Faults::alone(move |_| {
            let html = vec![("content-type", "text/html; charset=utf-8".to_owned())];
            Fault::Answer(status, html, b"<!DOCTYPE html><title>Hello</title>".to_vec())
        });
        let said = attempt.fails(&web.image("demo:1"), &[]);
        assert!(!said.contains("DOCTYPE"), "{said}");
        let named = if status == 200 { "text/html" } else { "demo:1 not found" };
        assert!(said.contains(named), "{said}");
    }
    attempt.recovers();
}

#[test]
fn a_manifest_of_docker_schema_1_is_refused_with_the_text_of_docker() {
    let attempt = Attempt::new();
    let proxy = Faults::before(attempt.registry.host(), |request| {
        let media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        let body = json!({"schemaVersion": 1, "name": "demo", "tag": "1", "fsLayers": []});
        let head = vec![("content-type", media_type.to_owned())];
        let schema_1 = Fault::Answer(200, head, body.to_string().into_bytes());
        if request.is_manifest() { schema_1 } else { Fault::None }
    });
    let said = attempt.fails(&proxy.image("demo:1"), &[]);
    let expected = "Error: Docker Image Format v1 and Docker Image manifest version 2, schema 1 \
                    support has been removed.";
    assert!(said.starts_with(expected), "{said}");
    attempt.recovers();
}

#[test]
fn what_is_no_container_image_is_refused() {
    let attempt = Attempt::new();
    let mut layer = small("file");
    layer.media_type = "application/vnd.example.layer".to_owned();
    let name = attempt.put(&layer);
    let said = attempt.fails(&name, &[]);
    assert!(said.contains("\"application/vnd.example.layer\" is not supported"), "{said}");
    let chart = "application/vnd.cncf.helm.config.v1+json";
    let config = attempt.registry.put_blob("chart", chart, b"{}").0;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [],
    });
    attempt.registry.put_manifest("chart", "1", &manifest);
    let said = attempt.fails(&attempt.registry.image("chart:1"), &[]);
    assert!(
        said.contains(&format!("not a container image: the config has media type \"{chart}\""))
    );
    attempt.recovers();
}
