//! What a registry has, looked at without pulling it.

use serde_json::Value;

use crate::common::{Registry, Session, Who};

#[test]
fn a_manifest_is_shown_as_the_registry_has_it() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    let name = registry.image("demo:1");
    session.import(&name);
    session.run(&["push", "-q", &name]);
    let shown = session.run(&["manifest", "inspect", &name]);
    assert!(shown.starts_with("{\n\t\""), "{shown}");
    let manifest: Value = serde_json::from_str(&shown).unwrap();
    let raw: Value = serde_json::from_str(&registry.raw("demo:1")).unwrap();
    assert_eq!(manifest, raw);

    let shown = session.run(&["manifest", "inspect", "-v", &name]);
    let verbose: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(verbose["Ref"], name);
    assert_eq!(verbose["OCIManifest"], raw);
    assert_eq!(verbose["Descriptor"]["platform"]["os"], "linux");
    assert_eq!(verbose["Descriptor"]["size"], registry.raw("demo:1").len());
    assert_eq!(session.run(&["images", "-q", "none"]), "");
}

#[test]
fn a_manifest_that_is_not_there_is_told() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    let name = registry.image("none:1");
    for flags in [&["manifest", "inspect"][..], &["manifest", "inspect", "--insecure", "-v"]] {
        let said = session.refused(&[flags, &[&name]].concat());
        assert_eq!(said, format!("Error: no such manifest: {name}\n"));
    }
}
