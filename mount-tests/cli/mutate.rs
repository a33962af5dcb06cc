//! Images with another configuration on the same layers.

use serde_json::{Value, json};

use crate::common::{Crafted, Fault, Faults, Packing, Registry, Session, Who};

/// Returns what an image says of itself.
fn inspected(session: &Session, image: &str) -> Value {
    let text = session.run(&["inspect", "--type", "image", image]);
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

#[test]
fn a_mutated_image_keeps_its_layers_and_tells_what_was_done() {
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        session.import("base:1");
        let id = session.run(
            &[
                &["mutate", "base:1", "-t", "new:1", "-m", "why", "-c", "ENV A=1 B=2"][..],
                &["--unset-env", "A", "--env", "C=$B d", "-l", "key=value", "--cmd", "sh -c"],
                &["--user", "me", "--workdir", "/w", "--volume", "/v", "--expose", "80"],
                &["--stopsignal", "SIGINT"],
            ]
            .concat(),
        );
        let (base, new) = (inspected(&session, "base:1"), inspected(&session, "new:1"));
        assert_eq!(new["Id"].as_str(), Some(id.trim_end()));
        assert_eq!(new["RootFS"], base["RootFS"]);
        let config = &new["Config"];
        for (field, expected) in [
            ("Env", json!(["B=2", "C=$B d"])),
            ("Cmd", json!(["sh", "-c"])),
            ("Labels", json!({"key": "value"})),
            ("User", json!("me")),
            ("WorkingDir", json!("/w")),
            ("Volumes", json!({"/v": {}})),
            ("ExposedPorts", json!({"80/tcp": {}})),
            ("StopSignal", json!("SIGINT")),
        ] {
            assert_eq!(config[field], expected, "{field}");
        }
        let history = session.run(&["history", "--no-trunc", "new:1"]);
        let newest = history.lines().nth(1).unwrap();
        assert!(newest.contains("ENV A=1 B=2; unset ENV A; ENV C=$B d"), "{history}");
        assert!(newest.contains("0B") && newest.ends_with("why"), "{history}");
        assert_eq!(session.run(&["cat", "new:1:/file"]), "content\n");
    }
}

#[test]
fn without_a_name_the_name_stays_and_with_one_it_moves() {
    let session = Session::new(Who::User);
    session.import("base:1");
    let base = session.run(&["images", "-q", "--no-trunc", "base"]);
    let new = session.run(&["mutate", "base:1", "--cmd", "sh"]);
    assert_eq!(session.run(&["images", "-q", "--no-trunc", "base"]), base);
    assert_eq!(inspected(&session, new.trim_end())["RepoTags"], json!([]));
    let moved = session.run(&["mutate", "base:1", "-t", "base:1", "--cmd", "sh"]);
    assert_eq!(session.run(&["images", "-q", "--no-trunc", "base"]), moved);
    assert_eq!(inspected(&session, base.trim_end())["RepoTags"], json!([]));
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_is_made() {
    let session = Session::new(Who::User);
    session.import("base:1");
    for (arguments, said) in [
        (&["mutate", "base:1"][..], "nothing to change of base:1"),
        (&["mutate", "none:1", "--cmd", "x"], "No such image: none:1"),
        (&["mutate", "base:1", "--env", "A"], "must be of the form NAME=VALUE"),
        (&["mutate", "base:1", "-c", "RUN x"], "run is not a valid change command"),
        (&["mutate", "base:1", "--cmd", "x", "-t", "UPPER:1"], "must be lowercase"),
    ] {
        let output = session.try_run(arguments);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{arguments:?}");
        assert!(output.stderr.contains(said), "{arguments:?}: {}", output.stderr);
    }
    assert_eq!(session.run(&["images", "-q"]).lines().count(), 1);
}

#[test]
fn pushing_a_mutated_image_uploads_a_configuration_and_a_manifest() {
    let registry = Registry::start();
    let plain = Crafted::new(Packing::Zstd, &[("one", b"1\n")]);
    let mut docker = Crafted::new(Packing::Gzip, &[("two", b"2\n")]);
    docker.media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned();
    let blobs = [plain.digest(), docker.digest()];
    registry.put_image("demo:1", "linux/amd64", &[plain, docker]);
    let proxy = Faults::before(registry.host(), |_| Fault::None);
    let session = Session::new(Who::User);
    let (old, new) = (proxy.image("demo:1"), proxy.image("demo:2"));
    session.run(&["pull", &old]);
    session.run(&["mutate", &old, "-t", &new, "--entrypoint", "/one"]);
    let before = registry.requests().len();
    session.run(&["push", &new]);
    assert_eq!(registry.uploads_since(before).len(), 2, "POST and PUT of a configuration");
    let manifest: Value = serde_json::from_str(&registry.raw("demo:2")).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let types =
        ["+zstd", "+gzip"].map(|end| format!("application/vnd.oci.image.layer.v1.tar{end}"));
    for ((layer, blob), media_type) in layers.iter().zip(blobs).zip(types) {
        assert_eq!(layer["digest"], blob.as_str());
        assert_eq!(layer["mediaType"], media_type.as_str());
    }
}

#[test]
fn regression_what_is_added_to_an_image_without_history_tells_of_itself() {
    let registry = Registry::start();
    let layers = [
        Crafted::new(Packing::Gzip, &[("a", b"a\n")]),
        Crafted::new(Packing::Gzip, &[("b", b"bb\n")]),
    ];
    registry.put_image("bare:1", "linux/amd64", &layers);
    let session = Session::new(Who::User);
    let name = registry.image("bare:1");
    session.run(&["pull", "-q", &name]);
    session.run(&["create", "--name", "box", &name, "made", "by", "me"]);
    std::fs::write(session.path("file"), "contents\n").unwrap();
    session.run(&["cp", "file", "box:/"]);
    session.run(&["commit", "-m", "said", "box", "committed"]);
    session.run(&["mutate", &name, "-t", "mutated", "--env", "A=b", "-m", "changed"]);
    let form = "{{.CreatedBy}}|{{.Size}}|{{.Comment}}";
    let history = |image: &str| session.run(&["history", "--format", form, image]);
    assert_eq!(history("committed"), "made by me|9B|said\n|3B|\n|2B|\n");
    assert_eq!(history("mutated"), "ENV A=b|0B|changed\n|3B|\n|2B|\n");
}
