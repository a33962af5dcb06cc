//! How much memory a command takes at most.

use std::process::Command;

use crate::common::{Registry, Session, Who, measured, script};

/// The promise: whatever the size of a layer.
const MOST_BYTES: u64 = 100_000_000;

#[test]
fn a_large_layer_takes_little_memory_whatever_is_done_with_it() {
    let registry = Registry::start();
    let session = Session::new(Who::Root);
    // A file of 400 MiB, of which 50 cannot be compressed, and 20,000 small ones.
    script(
        "mkdir -p root/many && truncate -s 400M root/large
         head -c 50M /dev/urandom | dd of=root/large conv=notrunc bs=1M seek=100 status=none
         for d in $(seq 200); do mkdir root/many/$d; for f in $(seq 100); do echo $d/$f; done |
             (cd root/many && xargs touch); done
         seq 2000 > root/many/1/1
         tar -cf layer.tar -C root . && rm -r root
         umoci init --layout oci && umoci new --image oci:latest
         umoci raw add-layer --image oci:latest layer.tar",
        &session.path(""),
    );
    registry.fill(&format!("oci:{}:latest", session.path("oci").display()), "large:1", &[]);
    let image = registry.image("large:1");
    let peak = peak_bytes(session.command(&["pull", "-q", &image]));
    assert!(peak < MOST_BYTES, "pull took {peak} bytes");
    let peak = peak_bytes(session.command(&["import", "layer.tar", "again:1"]));
    assert!(peak < MOST_BYTES, "import took {peak} bytes");
    let peak = peak_bytes(session.command(&["export", "-o", "out.tar", &image]));
    assert!(peak < MOST_BYTES, "export took {peak} bytes");
    let peak = peak_bytes(session.command(&["save", "-o", "saved.tar", &image]));
    assert!(peak < MOST_BYTES, "save took {peak} bytes");
    script("gzip -1 saved.tar", &session.path(""));
    let other = Session::new(Who::Root);
    let archive = session.path("saved.tar.gz");
    let peak = peak_bytes(other.command(&["load", "-i", archive.to_str().unwrap()]));
    assert!(peak < MOST_BYTES, "load took {peak} bytes");
}

/// Runs a command, which must succeed, and returns the most memory it had resident.
fn peak_bytes(mut command: Command) -> u64 {
    let (output, peak) = measured(&mut command);
    assert_eq!(output.code, 0, "{command:?}: {}", output.stderr);
    peak
}
