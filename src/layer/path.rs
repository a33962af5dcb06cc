//! Paths of a tree, as a tar has them: names from the root, without a leading slash.

/// Returns the names of a path: the root is no name, `.` and empty parts are nothing, and `..`
/// takes the name before it away but never leads above the root.
pub(crate) fn components(path: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names
}

/// Returns the path of a name in a directory; the root has the empty path.
pub fn join_path(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
    [dir, slash, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_names_below_the_root() {
        for (path, names) in [
            ("", ""),
            ("/", ""),
            ("./", ""),
            ("../..", ""),
            ("a", "a"),
            ("/a//b/", "a b"),
            ("./a/./b", "a b"),
            ("a/../b", "b"),
            ("../../etc/passwd", "etc passwd"),
            ("a/b/../../../c", "c"),
            ("...", "..."),
        ] {
            let found: Vec<_> = components(path.as_bytes()).into_iter().collect();
            let expected: Vec<_> = names.split_whitespace().map(str::as_bytes).collect();
            assert_eq!(found, expected, "{path}");
        }
    }
}
