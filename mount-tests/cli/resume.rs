//! Pulls that are interrupted go on where they were.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;

use crate::common::{Crafted, Fault, Faults, Packing, Registry, Session, Who, noise, spawn};

const MIB: u64 = 1 << 20;
/// How much of the layer the first pull gets.
const PASSED: u64 = 9 * MIB;

/// Starts a registry with an image of one large layer.
fn registry_with_large_layer() -> (Registry, Crafted) {
    let registry = Registry::start();
    let content = noise(12 << 20);
    let layer = Crafted::new(Packing::Plain, &[("noise", &content)]);
    registry.put_image("demo:1", "linux/amd64", std::slice::from_ref(&layer));
    (registry, layer)
}

/// Starts a proxy that does this to the first request for a layer.
fn spoil_first(registry: &Registry, layer: &Crafted, fault: Fault) -> Faults {
    let end = layer.digest();
    Faults::before(registry.host(), move |request| {
        let first = request.is_blob() && request.line.ends_with(&end) && request.before == 0;
        if first { fault.clone() } else { Fault::None }
    })
}

/// Returns where the requests for the layer began.
fn starts(proxy: &Faults, layer: &Crafted) -> Vec<u64> {
    let end = layer.digest();
    let requests = proxy.requests(|request| request.is_blob() && request.line.ends_with(&end));
    let start = |range: &str| -> u64 {
        let number = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        number.unwrap_or("0").parse().unwrap()
    };
    requests.iter().map(|request| start(request.header("range"))).collect()
}

/// Returns where the store keeps what has arrived of a layer.
fn download(session: &Session, layer: &Crafted) -> PathBuf {
    let digest = layer.digest();
    session.path("store/staging").join(format!("download-{}", &digest["sha256:".len()..]))
}

/// Pulls the image and kills the pull when some of the layer has reached the disk; returns how much.
fn killed_pull(session: &Session, proxy: &Faults, layer: &Crafted) -> u64 {
    let mut command = session.command(&["pull", &proxy.image("demo:1")]);
    let mut pull: Child = spawn(command.stdout(Stdio::null()));
    proxy.stalled();
    // What the proxy has passed is on its way; the pull waits for more and cannot end before.
    let file = download(session, layer);
    while fs::metadata(&file).map_or(0, |metadata| metadata.len()) < PASSED / 2 {
        assert!(pull.try_wait().unwrap().is_none(), "the pull ended");
        thread::yield_now();
    }
    pull.kill().unwrap();
    pull.wait().unwrap();
    assert_eq!(session.run(&["images", "-q"]), "");
    fs::metadata(&file).unwrap().len()
}

fn assert_complete(session: &Session, proxy: &Faults, layer: &Crafted) {
    let said = session.run(&["pull", &proxy.image("demo:1")]);
    assert!(said.contains(&format!("{}: Pull complete\n", layer.short())), "{said}");
    assert!(!download(session, layer).exists(), "what was downloaded stays");
    let digest = layer.digest();
    // The store has checked that it hashes to this: the same image from the registry is the same.
    let found = session.run(&["pull", &proxy.image("demo:1")]);
    assert!(found.contains("Status: Image is up to date"), "{digest}: {found}");
}

#[test]
fn a_pull_that_was_killed_goes_on_where_it_was() {
    let (registry, layer) = registry_with_large_layer();
    for who in [Who::Root, Who::User] {
        let proxy = spoil_first(&registry, &layer, Fault::Stall(PASSED));
        let session = Session::new(who);
        let kept = killed_pull(&session, &proxy, &layer);
        assert_complete(&session, &proxy, &layer);
        assert_eq!(starts(&proxy, &layer), [0, kept]);
    }
}

#[test]
fn what_was_kept_of_a_killed_pull_is_not_trusted() {
    let (registry, layer) = registry_with_large_layer();
    let proxy = spoil_first(&registry, &layer, Fault::Stall(PASSED));
    let session = Session::new(Who::User);
    let kept = killed_pull(&session, &proxy, &layer);
    let file = fs::File::options().write(true).open(download(&session, &layer)).unwrap();
    file.write_all_at(b"damage", MIB).unwrap();
    assert_complete(&session, &proxy, &layer);
    assert_eq!(starts(&proxy, &layer), [0, kept, 0]);
}

#[test]
fn a_connection_that_is_cut_is_made_again_from_the_same_byte() {
    let (registry, layer) = registry_with_large_layer();
    let proxy = spoil_first(&registry, &layer, Fault::Cut(PASSED));
    let session = Session::new(Who::User);
    assert_complete(&session, &proxy, &layer);
    assert_eq!(starts(&proxy, &layer), [0, PASSED]);
}

#[test]
fn a_small_layer_that_is_cut_is_continued_too() {
    let registry = Registry::start();
    let layer = Crafted::new(Packing::Gzip, &[("noise", &noise(100_000))]);
    registry.put_image("demo:1", "linux/amd64", std::slice::from_ref(&layer));
    let proxy = spoil_first(&registry, &layer, Fault::Cut(70_000));
    let session = Session::new(Who::User);
    assert_complete(&session, &proxy, &layer);
    assert_eq!(starts(&proxy, &layer), [0, 70_000]);
}
