//! What paths take over the layers of a stack.

use super::*;

/// Returns a line for each path: its layers, bytes and least bytes.
fn uses(layers: &[&[&str]]) -> Vec<String> {
    let indexes: Vec<_> =
        layers.iter().map(|entries| unpack_bytes(&tar_of(entries)).unwrap().index).collect();
    let line = |told: PathUse| {
        let path = String::from_utf8(told.path).unwrap();
        format!("{path} {} {} {}", told.layers, told.bytes, told.least_bytes)
    };
    path_uses(&indexes).unwrap().into_iter().map(line).collect()
}

#[test]
fn a_path_counts_in_each_layer_that_writes_or_removes_it() {
    let base: &[&str] = &["d/", "d/a=12345", "d/b=123", "f=1234567", "l->f"];
    for (upper, expected) in [
        (&["new=1"][..], vec!["d/a 1 5 5", "d/b 1 3 3", "f 1 7 7", "l 1 0 0", "new 1 1 1"]),
        (&["f=12"], vec!["d/a 1 5 5", "d/b 1 3 3", "f 2 9 2", "l 1 0 0"]),
        (&[".wh.f="], vec!["d/a 1 5 5", "d/b 1 3 3", "f 2 7 0", "l 1 0 0"]),
        // A directory goes with what is in it, whichever way.
        (&[".wh.d="], vec!["d/a 2 5 0", "d/b 2 3 0", "f 1 7 7", "l 1 0 0"]),
        (&["d/", "d/.wh..wh..opq=", "d/a=1"], vec!["d/a 2 6 1", "d/b 2 3 0", "f 1 7 7", "l 1 0 0"]),
        (&["d=file"], vec!["d 1 4 4", "d/a 2 5 0", "d/b 2 3 0", "f 1 7 7", "l 1 0 0"]),
        // Removed and written again: written.
        (&[".wh.f=", "f=1234"], vec!["d/a 1 5 5", "d/b 1 3 3", "f 2 11 4", "l 1 0 0"]),
        (&[".wh.nothing="], vec!["d/a 1 5 5", "d/b 1 3 3", "f 1 7 7", "l 1 0 0"]),
        // A directory that is described again is not written.
        (&["d/"], vec!["d/a 1 5 5", "d/b 1 3 3", "f 1 7 7", "l 1 0 0"]),
    ] {
        assert_eq!(uses(&[base, upper]), expected, "{upper:?}");
    }
}

#[test]
fn a_file_with_several_names_counts_at_the_first() {
    let base: &[&str] = &["b=1234", "a=>b"];
    assert_eq!(uses(&[base]), ["a 1 4 4", "b 1 0 0"]);
    // A link to a file of a lower layer takes nothing.
    assert_eq!(uses(&[base, &["c=>b"]]), ["a 1 4 4", "b 1 0 0", "c 1 0 0"]);
}

#[test]
fn what_comes_again_after_it_was_removed_counts_each_time() {
    assert_eq!(uses(&[&["f=123"], &[".wh.f="], &["f=12"], &["f=1"]]), ["f 4 6 0"]);
}
