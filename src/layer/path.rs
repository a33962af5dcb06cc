//! The path of a tar entry, as names from the root.

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
