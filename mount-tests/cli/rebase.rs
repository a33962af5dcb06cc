//! Layers of an image on another base.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Crafted, Packing, Registry, Session, Who, small};

/// Returns a session with `old:1` and `new:1`, of one and of two layers, and `app:1`, which is
/// `old:1` with a layer of its own and a row of history without one.
fn with_images() -> Session {
    let session = Session::new(Who::User);
    for (name, text) in [("old", "old\n"), ("new", "new\n")] {
        let dir = session.dir(name);
        fs::write(dir.join("release"), text).unwrap();
        fs::write(dir.join(name), "").unwrap();
        let label = format!("LABEL base={name}");
        session.run(&["import", "-c", &label, "-m", name, name, &format!("{name}:1")]);
    }
    fs::write(session.dir("more").join("more"), "").unwrap();
    session.run(&["append", "new:1", "more", "-t", "new:1"]);
    fs::write(session.dir("app").join("program"), "app\n").unwrap();
    session.run(&["append", "old:1", "app", "-t", "app:1", "-m", "program"]);
    session.run(&["mutate", "app:1", "-t", "app:1", "--cmd", "program", "--label", "app=1"]);
    session
}

fn inspected(session: &Session, image: &str) -> Value {
    let text = session.run(&["inspect", "--type", "image", image]);
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

#[test]
fn an_image_gets_a_new_base_and_keeps_its_own() {
    let session = with_images();
    let arguments = ["rebase", "app:1", "--old-base", "old:1", "--new-base", "new:1"];
    let id = session.run(&[&arguments[..], &["-t", "app:2"]].concat());
    assert_eq!(session.run(&["images", "-q", "--no-trunc", "app:2"]), id);
    assert_eq!(session.run(&["ls", "app:2"]), "more\nnew\nprogram\nrelease\n");
    assert_eq!(session.run(&["cat", "app:2:/release"]), "new\n");
    let [app, new, made] = ["app:1", "new:1", "app:2"].map(|name| inspected(&session, name));
    let layers = |image: &Value| image["RootFS"]["Layers"].as_array().unwrap().clone();
    let expected = [&layers(&new)[..], &layers(&app)[1..]].concat();
    assert_eq!(layers(&made), expected);
    assert_eq!(made["Config"], app["Config"], "the configuration is the image's");
    assert_eq!(made["Config"]["Labels"], json!({"app": "1", "base": "old"}));
    let history = session.run(&["history", "--no-trunc", "app:2"]);
    let rows: Vec<_> = history.lines().skip(1).collect();
    for (row, words) in rows.iter().zip(["CMD program", "append app", "append more", "new"]) {
        assert!(row.contains(words), "{words}: {history}");
    }
    assert_eq!(rows.len(), 4, "{history}");
}

#[test]
fn what_is_not_the_base_is_refused() {
    let session = with_images();
    for (image, base, said) in [
        ("app:1", "new:1", "app:1 is not made of new:1: its layer 1 is "),
        ("old:1", "app:1", "old:1 is not made of app:1: it has 1 layers and the base has 2"),
        ("app:1", "none:1", "No such image: none:1"),
    ] {
        let text = session.refused(&["rebase", image, "--old-base", base, "--new-base", "old:1"]);
        assert!(text.contains(said), "{text}");
    }
    let output = session.try_run(&["rebase", "app:1", "--old-base", "old:1"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("--new-base"), "{}", output.stderr);
}

#[test]
fn pushing_a_rebased_image_uploads_no_layer() {
    let registry = Registry::start();
    let [first, second] = [small("first"), small("second")];
    let own = Crafted::new(Packing::Zstd, &[("own", b"own\n")]);
    registry.put_image("base:1", "linux/amd64", std::slice::from_ref(&first));
    registry.put_image("base:2", "linux/amd64", &[second, first.clone()]);
    registry.put_image("app:1", "linux/amd64", &[first, own]);
    let session = Session::new(Who::User);
    let names = ["base:1", "base:2", "app:1", "app:2"].map(|name| registry.image(name));
    names[..3].iter().for_each(|name| drop(session.run(&["pull", name])));
    let [old, new, app, made] = names.each_ref().map(String::as_str);
    session.run(&["rebase", app, "--old-base", old, "--new-base", new, "-t", made]);
    let said = session.run(&["push", made]);
    assert!(!said.contains(": Pushed"), "{said}");
    let manifest: Value = serde_json::from_str(&registry.raw("app:2")).unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 3);
    assert_eq!(session.run(&["ls", made]), "first\nown\nsecond\n");
}
