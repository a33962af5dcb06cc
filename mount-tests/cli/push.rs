//! Pushing to a real registry: nothing is sent that it has.

use std::fs;
use std::process::Command;

use crate::common::{
    Crafted, Fault, Faults, Packing, Registry, Session, Who, noise, small, succeed,
};

const HERE: &str = "linux/amd64";

/// Returns the requests through the proxy since `before` that could change the registry's blobs.
fn changes(proxy: &Faults, before: usize) -> Vec<String> {
    let requests = proxy.requests(|_| true).split_off(before);
    let lines = requests.into_iter().map(|request| request.line);
    lines.filter(|line| !line.starts_with("GET ") && !line.starts_with("HEAD ")).collect()
}

/// Returns what docker prints last of a push.
fn last_line(tag: &str, manifest: &str) -> String {
    let digest = strata::digest::Digest::of(manifest.as_bytes());
    format!("{tag}: digest: {digest} size: {}\n", manifest.len())
}

/// Makes an image of one file of noise, which is in no registry yet.
fn import_noise(session: &Session, name: &str, len: usize) {
    fs::write(session.dir("noisy").join("noise"), noise(len)).unwrap();
    session.run(&["import", "noisy", name]);
}

/// Writes a file into an image and commits it under another name.
fn commit(session: &Session, from: &str, to: &str) {
    let target = session.dir("work");
    let shown = target.to_str().unwrap();
    session.run(&["mount", "--rw", "--name", "work", from, shown]);
    session.who.act(|| fs::write(target.join("new"), "new\n").unwrap());
    session.run(&["commit", "work", to]);
    session.run(&["umount", shown]);
    session.run(&["rm", "work"]);
}

#[test]
fn an_image_that_was_pulled_is_pushed_without_a_blob() {
    let registry = Registry::start();
    let layers = [small("one"), small("two")];
    let pushed = registry.put_image("demo:1", HERE, &layers).digest();
    for who in [Who::Root, Who::User] {
        let proxy = Faults::before(registry.host(), |_| Fault::None);
        let session = Session::new(who);
        let name = proxy.image("demo:1");
        session.run(&["pull", &name]);
        let before = proxy.requests(|_| true).len();
        let said = session.run(&["push", &name]);
        let mut lines: Vec<_> = said.lines().collect();
        // The layers are looked for at the same time.
        lines[3..5].sort_unstable();
        let mut expected = vec![format!("The push refers to repository [{}]", proxy.image("demo"))];
        expected.extend(layers.iter().map(|layer| format!("{}: Preparing", layer.short_diff_id())));
        let mut exist: Vec<_> = layers
            .iter()
            .map(|layer| format!("{}: Layer already exists", layer.short_diff_id()))
            .collect();
        exist.sort_unstable();
        expected.extend(exist);
        let manifest = registry.raw("demo:1");
        expected.push(last_line("1", &manifest).trim_end().to_owned());
        assert_eq!(lines, expected);
        assert!(said.contains(&pushed), "{said}");
        assert_eq!(changes(&proxy, before), ["PUT /v2/demo/manifests/1"]);
    }
}

#[test]
fn another_repository_of_the_registry_takes_the_blobs_from_the_first() {
    let registry = Registry::start();
    let layer = small("file");
    let pushed = registry.put_image("team/app:1", HERE, std::slice::from_ref(&layer)).digest();
    let proxy = Faults::before(registry.host(), |_| Fault::None);
    let session = Session::new(Who::User);
    session.run(&["pull", &proxy.image("team/app:1")]);
    session.run(&["tag", &proxy.image("team/app:1"), &proxy.image("other/copy:2")]);
    let (asked, before) = (registry.requests().len(), proxy.requests(|_| true).len());
    let said = session.run(&["push", &proxy.image("other/copy:2")]);
    let short = layer.short_diff_id();
    assert!(
        said.contains(&format!("{short}: Mounted from team/app\n2: digest: {pushed}")),
        "{said}"
    );
    let mounted = registry.uploads_since(asked);
    assert_eq!(mounted.len(), 2, "{mounted:?}");
    for line in &mounted {
        assert!(line.starts_with("POST ") && line.contains("from=team%2Fapp"), "{line}");
        assert!(line.ends_with(" 201"), "{line}");
    }
    assert_eq!(changes(&proxy, before).len(), 3, "{:?}", changes(&proxy, before));
    assert_eq!(registry.raw("team/app:1"), registry.raw("other/copy:2"));
}

#[test]
fn a_registry_that_mounts_nothing_gets_the_blobs() {
    let registry = Registry::start();
    let layer = small("file");
    let pushed = registry.put_image("team/app:1", HERE, std::slice::from_ref(&layer)).digest();
    let proxy = Faults::before(registry.host(), |request| {
        let upload = Fault::answer(202, "").with("location", "/v2/other/copy/blobs/uploads/none");
        if request.line.contains("mount=") { upload } else { Fault::None }
    });
    let session = Session::new(Who::User);
    session.run(&["pull", &proxy.image("team/app:1")]);
    session.run(&["tag", &proxy.image("team/app:1"), &proxy.image("other/copy:1")]);
    let before = proxy.requests(|_| true).len();
    let said = session.run(&["push", &proxy.image("other/copy:1")]);
    assert!(said.contains(&format!("{}: Pushed\n", layer.short_diff_id())), "{said}");
    let puts: Vec<_> = changes(&proxy, before);
    let puts = puts.iter().filter(|line| line.starts_with("PUT /v2/other/copy/blobs/uploads/"));
    assert_eq!(puts.count(), 2, "layer and configuration");
    // What the first repository has is copied, not compressed anew.
    assert!(said.contains(&format!("1: digest: {pushed} ")), "{said}");
    session.run(&["rmi", &proxy.image("other/copy:1"), &proxy.image("team/app:1")]);
    session.run(&["pull", &proxy.image("other/copy:1")]);
}

#[test]
fn another_registry_gets_the_same_blobs() {
    let (first, second) = (Registry::start(), Registry::start());
    let layers = [Crafted::new(Packing::Zstd, &[("noise", &noise(50_000))]), small("two")];
    let pushed = first.put_image("demo:1", HERE, &layers).digest();
    let session = Session::new(Who::User);
    session.run(&["pull", &first.image("demo:1")]);
    session.run(&["tag", &first.image("demo:1"), &second.image("copy:1")]);
    let said = session.run(&["push", &second.image("copy:1")]);
    for layer in &layers {
        assert!(said.contains(&format!("{}: Pushed\n", layer.short_diff_id())), "{said}");
        assert_eq!(fs::read(second.blob(&layer.digest())).unwrap(), layer.blob);
    }
    assert!(said.contains(&pushed), "{said}");
    assert_eq!(first.raw("demo:1"), second.raw("copy:1"));
    second.fetch("copy:1", &session.path("layout"));
}

#[test]
fn a_layer_that_no_registry_has_any_more_is_compressed_anew() {
    let (first, second) = (Registry::start(), Registry::start());
    let layer = Crafted::new(Packing::Zstd, &[("noise", &noise(50_000))]);
    first.put_image("demo:1", HERE, std::slice::from_ref(&layer));
    let session = Session::new(Who::User);
    session.run(&["pull", &first.image("demo:1")]);
    session.run(&["tag", &first.image("demo:1"), &second.image("copy:1")]);
    drop(first);
    let output = session.try_run(&["push", &second.image("copy:1")]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stderr.starts_with("WARNING: layer "), "{}", output.stderr);
    assert!(output.stdout.contains(": Pushed\n"), "{}", output.stdout);
    // Tools of others see the same layer in it.
    second.fetch("copy:1", &session.path("layout"));
    let image = second.image("copy:1");
    let inspected = format!("docker://{image}");
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--config", "--tls-verify=false", &inspected]);
    let config: serde_json::Value = serde_json::from_str(&succeed(&mut command)).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], layer.diff_id.as_str());
    let other = Session::new(Who::User);
    other.run(&["pull", &image]);
}

#[test]
fn after_a_commit_only_the_new_layer_and_the_configuration_are_sent() {
    let registry = Registry::start();
    let base = Crafted::new(Packing::Gzip, &[("noise", &noise(50_000))]);
    registry.put_image("demo:1", HERE, std::slice::from_ref(&base));
    for who in [Who::Root, Who::User] {
        let proxy = Faults::before(registry.host(), |_| Fault::None);
        let session = Session::new(who);
        session.run(&["pull", &proxy.image("demo:1")]);
        commit(&session, &proxy.image("demo:1"), &proxy.image("demo:2"));
        let before = proxy.requests(|_| true).len();
        let said = session.run(&["push", &proxy.image("demo:2")]);
        let exists = format!("{}: Layer already exists\n", base.short_diff_id());
        assert!(said.contains(&exists) && said.contains(": Pushed\n"), "{said}");
        let sent = changes(&proxy, before);
        let begun = sent.iter().filter(|line| *line == "POST /v2/demo/blobs/uploads/").count();
        assert_eq!((begun, sent.len()), (2, 5), "{sent:?}");
        let before = proxy.requests(|_| true).len();
        let again = session.run(&["push", &proxy.image("demo:2")]);
        assert_eq!(changes(&proxy, before), ["PUT /v2/demo/manifests/2"]);
        assert_eq!(again.lines().last(), said.lines().last());
        let other = Session::new(Who::User);
        other.run(&["pull", &proxy.image("demo:2")]);
    }
}

#[test]
fn a_push_says_what_docker_says() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    let name = registry.image("demo");
    import_noise(&session, &name, 10_000);
    let details: serde_json::Value =
        serde_json::from_str(&session.run(&["inspect", &name])).unwrap();
    let layer = details[0]["RootFS"]["Layers"][0].as_str().expect("a layer").to_owned();
    let short = &layer["sha256:".len()..][..12];
    let said = session.run(&["push", &name]);
    let expected = format!(
        "Using default tag: latest\nThe push refers to repository [{name}]\n{short}: \
         Preparing\n{short}: Pushed\n{}",
        last_line("latest", &registry.raw("demo:latest"))
    );
    assert_eq!(said, expected);
    assert_eq!(session.run(&["push", "-q", &name]), format!("{name}:latest\n"));
}

#[test]
fn all_tags_of_a_repository_are_pushed() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    let name = registry.image("demo");
    for tag in ["1", "2"] {
        import_noise(&session, &format!("{name}:{tag}"), 1000 * tag.len());
    }
    session.import(&registry.image("other:3"));
    let said = session.run(&["push", "-a", &name]);
    assert!(said.starts_with(&format!("The push refers to repository [{name}]\n")), "{said}");
    for tag in ["1", "2"] {
        let manifest = registry.raw(&format!("demo:{tag}"));
        assert!(said.contains(&last_line(tag, &manifest)), "{said}");
    }
    assert!(!said.contains("3: digest"), "{said}");
    assert_eq!(session.run(&["push", "-a", "-q", &name]), format!("{name}\n"));
    let said = session.refused(&["push", "-a", &format!("{name}:1")]);
    assert!(said.contains("tag can't be used with --all-tags/-a"), "{said}");
}

#[test]
fn the_image_of_one_platform_is_pushed_from_an_index() {
    let (first, second) = (Registry::start(), Registry::start());
    let manifest = first.put_image("demo", HERE, &[small("file")]);
    let other = first.put_image("demo", "linux/arm64", &[small("other")]).on("linux/arm64");
    first.put_index("demo:1", &[other, manifest.clone().on(HERE)]);
    let session = Session::new(Who::User);
    session.run(&["pull", &first.image("demo:1")]);
    session.run(&["tag", &first.image("demo:1"), &second.image("demo:1")]);
    let said = session.run(&["push", &second.image("demo:1")]);
    assert!(said.contains(&format!("1: digest: {} ", manifest.digest())), "{said}");
}

#[test]
fn a_push_that_is_denied_is_told_as_docker_does() {
    let registry = Registry::start();
    let proxy = Faults::before(registry.host(), |request| {
        let denied = Fault::error(403, "DENIED", "requested access to the resource is denied");
        if request.line.starts_with("POST ") { denied } else { Fault::None }
    });
    let session = Session::new(Who::User);
    let name = proxy.image("demo:1");
    session.import(&name);
    let said = session.refused(&["push", &name]);
    assert_eq!(said, "Error: denied: requested access to the resource is denied\n");
    assert_eq!(changes(&proxy, 0), ["POST /v2/demo/blobs/uploads/"]);
}

#[test]
fn an_upload_that_breaks_is_made_again() {
    let registry = Registry::start();
    let proxy = Faults::before(registry.host(), |request| {
        let first = request.line.starts_with("POST ") && request.before == 0;
        if first { Fault::error(503, "UNAVAILABLE", "busy") } else { Fault::None }
    });
    let session = Session::new(Who::User);
    session.import(&proxy.image("demo:1"));
    session.run(&["push", &proxy.image("demo:1")]);
    registry.fetch("demo:1", &session.path("layout"));
}

#[test]
fn what_is_not_there_cannot_be_pushed() {
    let session = Session::new(Who::User);
    let said = session.refused(&["push", "127.0.0.1:1/demo:1"]);
    assert_eq!(said, "Error: An image does not exist locally with the tag: 127.0.0.1:1/demo\n");
    session.import("127.0.0.1:1/demo:1");
    let said = session.refused(&["push", "127.0.0.1:1/demo:2"]);
    assert_eq!(said, "Error: tag does not exist: 127.0.0.1:1/demo:2\n");
}
