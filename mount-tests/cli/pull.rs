//! Pulling from a real registry.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{
    Crafted, Fault, Faults, Packing, Registry, Session, Who, noise, small, succeed,
};

/// The platform of most images here: the one that tests run on.
const HERE: &str = "linux/amd64";

/// Returns the names of all files below a folder of the store.
fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

/// Returns what is known of an image.
fn details_of(session: &Session, image: &str) -> serde_json::Value {
    let found: serde_json::Value = serde_json::from_str(&session.run(&["inspect", image])).unwrap();
    found[0].clone()
}

/// Returns the files of an image and what is in them, through a mount.
fn content_of(session: &Session, image: &str) -> Vec<(String, Vec<u8>)> {
    let target = session.dir("look");
    let shown = target.to_str().unwrap();
    session.run(&["mount", image, shown]);
    let content = session.who.act(|| {
        let mut names: Vec<_> = fs::read_dir(&target).unwrap().map(Result::unwrap).collect();
        names.sort_by_key(fs::DirEntry::file_name);
        let read = |entry: &fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).unwrap())
        };
        names.iter().map(read).collect()
    });
    session.run(&["umount", shown]);
    content
}

#[test]
fn a_pull_says_what_docker_says() {
    let registry = Registry::start();
    let (base, top) = (small("base"), small("top"));
    registry.put_image("team/base:1", HERE, std::slice::from_ref(&base));
    let pushed = registry.put_image("team/app:1", HERE, &[base.clone(), top.clone()]).digest();
    let session = Session::new(Who::User);
    session.run(&["pull", &registry.image("team/base:1")]);
    let name = registry.image("team/app:1");
    let said = session.run(&["pull", &name]);
    let expected = format!(
        "1: Pulling from team/app\n{base}: Already exists\n{top}: Pulling fs layer\n{top}: \
         Download complete\n{top}: Pull complete\nDigest: {pushed}\nStatus: Downloaded newer \
         image for {name}\n{name}\n",
        base = base.short(),
        top = top.short(),
    );
    assert_eq!(said, expected);
}

#[test]
fn an_image_that_is_up_to_date_is_not_fetched_again() {
    let registry = Registry::start();
    let pushed = registry.put_image("demo:1", HERE, &[small("file")]).digest();
    let proxy = Faults::before(registry.host(), |_| Fault::None);
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        let name = proxy.image("demo:1");
        session.run(&["pull", "-q", &name]);
        let before = proxy.requests(|_| true).len();
        let expected = format!(
            "1: Pulling from demo\nDigest: {pushed}\nStatus: Image is up to date for \
             {name}\n{name}\n"
        );
        assert_eq!(session.run(&["pull", &name]), expected);
        let requests = proxy.requests(|_| true).split_off(before);
        let lines: Vec<_> = requests.iter().map(|request| request.line.as_str()).collect();
        assert_eq!(lines, ["GET /v2/", "GET /v2/demo/manifests/1"]);
    }
}

#[test]
fn an_image_is_pulled_by_digest() {
    let registry = Registry::start();
    let layer = small("file");
    let pushed = registry.put_image("demo:1", HERE, std::slice::from_ref(&layer)).digest();
    let session = Session::new(Who::User);
    let name = registry.image(&format!("demo@{pushed}"));
    let expected = format!(
        "{name}: Pulling from demo\n{short}: Pulling fs layer\n{short}: Download \
         complete\n{short}: Pull complete\nDigest: {pushed}\nStatus: Downloaded newer image for \
         {name}\n{name}\n",
        short = layer.short()
    );
    assert_eq!(session.run(&["pull", &name]), expected);
    let images = session.run(&["images", "--digests"]);
    let row = images.lines().nth(1).expect("a row");
    assert!(row.contains("<none>") && row.contains(&pushed), "{images}");
    assert_eq!(content_of(&session, &name), [("file".to_owned(), b"content\n".to_vec())]);
}

#[test]
fn a_name_without_tag_means_latest() {
    let registry = Registry::start();
    registry.put_image("demo:latest", HERE, &[small("file")]);
    let session = Session::new(Who::User);
    let said = session.run(&["pull", &registry.image("demo")]);
    assert!(said.starts_with("Using default tag: latest\nlatest: Pulling from demo\n"), "{said}");
    assert!(said.ends_with(&format!("\n{}\n", registry.image("demo:latest"))), "{said}");
}

#[test]
fn a_quiet_pull_prints_the_name_alone() {
    let registry = Registry::start();
    registry.put_image("demo:latest", HERE, &[small("file")]);
    let session = Session::new(Who::User);
    for _ in ["newer", "up to date"] {
        let output = session.try_run(&["pull", "-q", &registry.image("demo")]);
        assert_eq!(output.stdout, format!("{}\n", registry.image("demo:latest")));
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    }
}

#[test]
fn all_tags_of_a_repository_are_pulled() {
    let registry = Registry::start();
    let layers = [small("one"), small("two")];
    let put = |at: usize| {
        let name = format!("demo:{}", at + 1);
        registry.put_image(&name, HERE, &layers[at..=at]).digest()
    };
    let digests = [put(0), put(1)];
    let session = Session::new(Who::User);
    let name = registry.image("demo");
    let block = |at: usize| {
        let (tag, short, digest) = (at + 1, layers[at].short(), &digests[at]);
        format!(
            "{tag}: Pulling from demo\n{short}: Pulling fs layer\n{short}: Download \
             complete\n{short}: Pull complete\nDigest: {digest}\n"
        )
    };
    let end = format!("Status: Downloaded newer image for {name}\n{name}\n");
    let said = session.run(&["pull", "-a", &name]);
    // The registry lists the tags in the order of its directory.
    let (one, two) = (block(0), block(1));
    assert!([format!("{one}{two}{end}"), format!("{two}{one}{end}")].contains(&said), "{said}");
    assert_eq!(session.run(&["pull", "--all-tags", "-q", &name]), format!("{name}\n"));
    for tag in ["demo:1", "demo:2"] {
        assert_eq!(details_of(&session, &registry.image(tag))["Os"], "linux");
    }
    let said = session.refused(&["pull", "-a", &registry.image("demo:1")]);
    assert!(said.contains("tag can't be used with --all-tags/-a"), "{said}");
}

#[test]
fn a_tag_that_moved_is_pulled_anew_and_leaves_the_old_image_without_name() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    let name = registry.image("demo:1");
    registry.put_image("demo:1", HERE, &[small("old")]);
    session.run(&["pull", &name]);
    let old = details_of(&session, &name)["Id"].clone();
    registry.put_image("demo:1", HERE, &[small("new")]);
    let said = session.run(&["pull", &name]);
    assert!(said.contains("Status: Downloaded newer image for "), "{said}");
    assert_eq!(content_of(&session, &name)[0].0, "new");
    assert_ne!(details_of(&session, &name)["Id"], old);
    let old = details_of(&session, old.as_str().expect("an id"));
    assert_eq!(old["RepoTags"], serde_json::json!([]));
}

#[test]
fn docker_and_oci_manifests_give_the_same_image() {
    let registry = Registry::start();
    registry.put_image("demo:source", HERE, &[small("one"), small("two")]);
    let source = format!("docker://{}", registry.image("demo:source"));
    for format in ["v2s2", "oci"] {
        let options = ["--src-tls-verify=false", "--format", format];
        registry.fill(&source, &format!("demo:{format}"), &options);
    }
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        let pull = |format: &str| {
            let name = registry.image(&format!("demo:{format}"));
            session.run(&["pull", &name]);
            content_of(&session, &name)
        };
        assert_eq!(pull("v2s2"), pull("oci"));
        let layers = files_below(&session.path("store/layers"));
        assert_eq!(layers.iter().filter(|name| name.ends_with(".idx")).count(), 2, "{layers:?}");
    }
}

#[test]
fn layers_of_every_compression_are_the_same_layer() {
    let registry = Registry::start();
    let content = noise(100_000);
    let session = Session::new(Who::User);
    let mut contents = Vec::new();
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let layer = Crafted::new(packing, &[("noise", &content)]);
        let tag = format!("demo:{packing:?}");
        registry.put_image(&tag, HERE, &[layer]);
        let (own, name) = (Session::new(Who::User), registry.image(&tag));
        own.run(&["pull", &name]);
        contents.push(content_of(&own, &name));
        // In a store that has it in another compression it is there already.
        session.run(&["pull", &name]);
    }
    assert!(contents.iter().all(|found| *found == [("noise".to_owned(), content.clone())]));
    assert_eq!(files_below(&session.path("store/objects")).len(), 1);
}

#[test]
fn a_zstd_image_that_skopeo_wrote_is_pulled() {
    let registry = Registry::start();
    let content = noise(100_000);
    let layer = Crafted::new(Packing::Plain, &[("noise", &content)]);
    registry.put_image("demo:plain", HERE, &[layer]);
    let session = Session::new(Who::User);
    let archive = format!("docker-archive:{}:demo:1", session.path("archive.tar").display());
    let source = format!("docker://{}", registry.image("demo:plain"));
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &source, &archive]);
    succeed(&mut command);
    let zstd = ["--dest-compress", "--dest-compress-format", "zstd", "--format", "oci"];
    registry.fill(&archive, "demo:zstd", &zstd);
    let name = registry.image("demo:zstd");
    session.run(&["pull", &name]);
    assert_eq!(content_of(&session, &name), [("noise".to_owned(), content)]);
}

#[test]
fn the_image_for_the_platform_is_taken_from_an_index() {
    let registry = Registry::start();
    let platforms = [HERE, "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7"];
    let entries = platforms.map(|platform| {
        let layer = small(&platform.replace('/', "-"));
        registry.put_image("demo", platform, &[layer]).on(platform)
    });
    let index = registry.put_index("demo:1", &entries).digest();
    let session = Session::new(Who::User);
    let name = registry.image("demo:1");
    // (what is asked for, what is taken)
    let table = [
        ("", HERE),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/amd64/v3", HERE),
    ];
    for (asked, taken) in table {
        let mut command = session.command(&["pull", &name]);
        if !asked.is_empty() {
            command.args(["--platform", asked]);
        }
        let said = succeed(&mut command);
        assert!(said.contains(&format!("\nDigest: {index}\n")), "{asked}: {said}");
        assert_eq!(content_of(&session, &name)[0].0, taken.replace('/', "-"), "{asked}");
    }
    let said = session.refused(&["pull", "--platform", "linux/s390x", &name]);
    let expected = "no matching manifest for linux/s390x in the manifest list entries";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn an_index_that_umoci_and_buildah_made_is_pulled() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    let layout = session.path("layout").display().to_string();
    let oci = |tag: &str| format!("{layout}:{tag}");
    fs::write(session.dir("root").join("file"), "content\n").unwrap();
    let umoci = |arguments: &[&str]| succeed(Command::new("umoci").args(arguments));
    umoci(&["init", "--layout", &layout]);
    umoci(&["new", "--image", &oci("base")]);
    let root = session.path("root").display().to_string();
    umoci(&["insert", "--image", &oci("base"), "--tag", "amd64", &root, "/"]);
    let image = oci("amd64");
    umoci(&["config", "--image", &image, "--tag", "arm64", "--architecture", "arm64"]);
    let storage = session.path("buildah").display().to_string();
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs", "--root", &storage, "--runroot", &storage]);
        succeed(command.arg("manifest").args(arguments));
    };
    buildah(&["create", "list"]);
    for architecture in ["amd64", "arm64"] {
        buildah(&["add", "--arch", architecture, "list", &format!("oci:{}", oci(architecture))]);
    }
    let table = [
        ("oci", "application/vnd.oci.image.index.v1+json", "amd64"),
        ("v2s2", "application/vnd.docker.distribution.manifest.list.v2+json", "arm64"),
    ];
    for (format, media_type, architecture) in table {
        let name = registry.image(&format!("demo:{format}"));
        let target = format!("docker://{name}");
        buildah(&["push", "--tls-verify=false", "--all", "--format", format, "list", &target]);
        let index = registry.raw(&format!("demo:{format}"));
        assert!(index.contains(media_type), "{index}");
        session.run(&["pull", "--platform", &format!("linux/{architecture}"), &name]);
        assert_eq!(details_of(&session, &name)["Architecture"], architecture);
    }
}

#[test]
fn an_image_for_one_other_platform_is_pulled_unless_another_was_asked_for() {
    let registry = Registry::start();
    registry.put_image("demo:1", "linux/s390x", &[small("file")]);
    let session = Session::new(Who::User);
    let name = registry.image("demo:1");
    session.run(&["pull", &name]);
    let mut command = session.command(&["pull", &name]);
    command.env("DOCKER_DEFAULT_PLATFORM", "linux/s390x");
    succeed(&mut command);
}

#[test]
fn contents_are_shared_between_images() {
    let registry = Registry::start();
    let content = noise(50_000);
    let session = Session::new(Who::User);
    for name in ["one", "two"] {
        let layer = Crafted::new(Packing::Gzip, &[(name, &content), ("little", name.as_bytes())]);
        registry.put_image(&format!("{name}:1"), HERE, &[layer]);
        session.run(&["pull", "-q", &registry.image(&format!("{name}:1"))]);
    }
    let layers = files_below(&session.path("store/layers"));
    assert_eq!(layers.iter().filter(|name| name.ends_with(".idx")).count(), 2, "{layers:?}");
    assert_eq!(files_below(&session.path("store/objects")).len(), 1);
}

#[test]
fn a_layer_that_an_image_names_twice_is_fetched_once() {
    let registry = Registry::start();
    let (once, twice) = (small("once"), small("twice"));
    registry.put_image("demo:1", HERE, &[twice.clone(), once, twice.clone()]);
    let proxy = Faults::before(registry.host(), |_| Fault::None);
    let session = Session::new(Who::User);
    session.run(&["pull", &proxy.image("demo:1")]);
    let blob = proxy.requests(|request| request.line.ends_with(&twice.digest()));
    assert_eq!(blob.len(), 1, "{blob:?}");
    let names: Vec<_> = content_of(&session, &proxy.image("demo:1"));
    assert_eq!(names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["once", "twice"]);
}
