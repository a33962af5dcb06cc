//! What layers hold and hide, and which has made a file what it is.

use super::*;

fn indexes(layers: &[&[&str]]) -> Vec<Index> {
    layers.iter().map(|entries| unpack_bytes(&tar_of(entries)).unwrap().index).collect()
}

/// Returns entries, hidden files and hidden bytes of each layer.
fn accounts(layers: &[&[&str]]) -> Vec<(u64, u64, u64)> {
    let accounts = account(&indexes(layers)).unwrap().into_iter();
    accounts.map(|one| (one.entries, one.hidden_files, one.hidden_bytes)).collect()
}

#[test]
fn what_a_layer_hides_is_counted_once() {
    let base: &[&str] = &["d/", "d/a=12", "d/b=>d/a", "d/link->a", "f=123"];
    for (upper, expected) in [
        (&["new/x=1"][..], (1, 0, 0)),
        (&["f=4"], (1, 1, 3)),
        (&[".wh.f="], (1, 1, 3)),
        (&[".wh.nothing="], (1, 0, 0)),
        // One of two names is not the file.
        (&["d/.wh.a="], (1, 0, 0)),
        (&["d/.wh.a=", "d/.wh.b="], (2, 1, 2)),
        (&["d/", "d/.wh..wh..opq="], (1, 2, 2)),
        (&["d=file"], (1, 2, 2)),
        // Another name of a lower file is no other file.
        (&["hard=>f"], (1, 0, 0)),
    ] {
        assert_eq!(accounts(&[base, upper]), [(5, 0, 0), expected], "{upper:?}");
    }
}

#[test]
fn content_and_attributes_have_their_own_layers() {
    let layers: &[&[&str]] =
        &[&["d/", "d/a=1", "d/b=1", "l->d"], &["d/a=1", "d/b=2"], &["d/b=2", "c=x", "d/.wh.a="]];
    let told = |count: usize, path: &str, depth| {
        let found = origins(&indexes(&layers[..count]), path.as_bytes(), depth).unwrap();
        found.map(|found| {
            let line = |one: Origin| {
                let path = String::from_utf8(one.path).unwrap();
                (path, one.content, one.attributes)
            };
            found.into_iter().map(line).collect::<Vec<_>>()
        })
    };
    let line = |path: &str, content, attributes| (path.to_owned(), content, attributes);
    let expected = vec![line("d/a", Some(0), 0), line("d/b", Some(1), 0)];
    assert_eq!(told(2, "/d", Depth::Entries), Some(expected));
    let expected = vec![
        line("", None, 0),
        line("c", Some(2), 2),
        line("d", None, 0),
        line("d/b", Some(1), 0),
        line("l", Some(0), 0),
    ];
    assert_eq!(told(3, "", Depth::All), Some(expected));
    assert_eq!(told(3, "l/b", Depth::Entries), Some(vec![line("l/b", Some(1), 0)]));
    assert_eq!(told(3, "d/a", Depth::Entries), None);
}
