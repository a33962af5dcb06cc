//! Several processes at once, one of which does what all of them want.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use crate::common::{
    Crafted, Fault, Faults, Packing, Registry, Session, Who, noise, small, spawn, succeed,
};

/// Pulls that run at the same time.
const PULLS: usize = 6;

fn pull(session: &Session, name: &str) -> Child {
    spawn(session.command(&["pull", name]).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// Reads what a pull says until it waits for another one, and returns the rest of it.
fn until_it_waits(pull: &mut Child) -> impl Read + use<> {
    let mut said = BufReader::new(pull.stdout.take().unwrap());
    let mut line = String::new();
    while !line.ends_with(": Waiting\n") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended and did not wait");
    }
    said
}

/// Begins a pull whose answer stalls, and another one that waits for it; returns both, and what the second
/// says from then on.
fn one_waits_for_another(
    session: &Session,
    proxy: &Faults,
    name: &str,
) -> (Child, Child, impl Read + use<>) {
    let first = pull(session, name);
    proxy.stalled();
    let mut second = pull(session, name);
    let said = until_it_waits(&mut second);
    (first, second, said)
}

/// Starts a registry with an image of one layer, and a proxy whose first answer with that stops
/// after so many bytes.
fn stalling(layer: &Crafted, after: u64) -> (Registry, Faults) {
    let registry = Registry::start();
    registry.put_image("demo:1", "linux/amd64", std::slice::from_ref(layer));
    let end = layer.digest();
    let proxy = Faults::before(registry.host(), move |request| {
        let first = request.is_blob() && request.line.ends_with(&end) && request.before == 0;
        if first { Fault::Stall(after) } else { Fault::None }
    });
    (registry, proxy)
}

fn requests_for(proxy: &Faults, layer: &Crafted) -> usize {
    let end = layer.digest();
    proxy.requests(|request| request.is_blob() && request.line.ends_with(&end)).len()
}

#[test]
fn a_layer_that_several_pulls_want_is_fetched_once() {
    let registry = Registry::start();
    let layer = |name: &str, len| Crafted::new(Packing::Gzip, &[(name, &noise(len))]);
    let layers = [layer("a", 6 << 20), layer("b", 100_000), layer("c", 5 << 20), small("d")];
    let [a, b, c, d] = &layers;
    let images = [("one:1", [a, b, d]), ("two:1", [a, c, d]), ("three:1", [b, c, a])];
    for (name, layers) in images {
        registry.put_image(name, "linux/amd64", &layers.map(Clone::clone));
    }
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        let proxy = Faults::before(registry.host(), |_| Fault::None);
        let names = images.map(|(name, _)| proxy.image(name));
        let pulls: Vec<_> =
            names.iter().cycle().take(PULLS).map(|name| pull(&session, name)).collect();
        for pull in pulls {
            let output = pull.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(layers.each_ref().map(|layer| requests_for(&proxy, layer)), [1; 4]);
        for name in &names {
            assert!(session.run(&["pull", name]).contains("Image is up to date"));
        }
        assert!(session.path("store/staging").read_dir().unwrap().next().is_none());
    }
}

#[test]
fn who_waits_for_a_pull_that_is_killed_goes_on_for_it() {
    const PASSED: u64 = 5 << 20;
    let layer = Crafted::new(Packing::Plain, &[("noise", &noise(8 << 20))]);
    let (_registry, proxy) = stalling(&layer, PASSED);
    let session = Session::new(Who::User);
    let name = proxy.image("demo:1");
    let (mut first, mut second, mut said) = one_waits_for_another(&session, &proxy, &name);
    first.kill().unwrap();
    first.wait().unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(second.wait().unwrap().success(), "{rest}");
    assert!(rest.contains(&format!("{}: Pull complete\n", layer.short())), "{rest}");
    assert_eq!(requests_for(&proxy, &layer), 2);
    // What the dead have left is gone with the next.
    session.run(&["pull", "-q", &name]);
    assert!(session.path("store/staging").read_dir().unwrap().next().is_none());
}

#[test]
fn who_waits_for_a_pull_can_be_interrupted() {
    let layer = small("file");
    let (_registry, proxy) = stalling(&layer, 1);
    let session = Session::new(Who::User);
    let name = proxy.image("demo:1");
    let (mut first, mut second, mut said) = one_waits_for_another(&session, &proxy, &name);
    succeed(std::process::Command::new("kill").args(["-INT", &second.id().to_string()]));
    assert_eq!(second.wait().unwrap().code(), Some(130));
    said.read_to_end(&mut Vec::new()).unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    // What the dead have left is gone with the next.
    session.run(&["pull", "-q", &name]);
    assert!(session.path("store/staging").read_dir().unwrap().next().is_none());
    assert!(session.path("store/leases").read_dir().unwrap().next().is_none());
}
