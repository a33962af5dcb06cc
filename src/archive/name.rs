//! Names of files in an archive, and where links lead. Pure.

use crate::archive::error::{Error, Result};

/// Longest name of a file of an archive, in bytes.
const NAME_MAX: usize = 4096;

/// Returns a name without what means nothing in it: `./a//b/` is `a/b`.
///
/// # Errors
/// [`Error::Name`] for a name that leads out of the archive, or is no text.
pub(crate) fn normal(path: &[u8]) -> Result<String> {
    let shown = path.get(..NAME_MAX).unwrap_or(path);
    let refuse = |reason| Error::Name { name: shown.escape_ascii().to_string(), reason };
    if path.len() > NAME_MAX {
        return Err(refuse("it has more than 4096 bytes"));
    }
    let text = str::from_utf8(path).map_err(|_| refuse("it is no UTF-8"))?;
    if text.starts_with('/') {
        return Err(refuse("it is absolute"));
    }
    let mut parts = Vec::new();
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return Err(refuse("it leads out of the archive"));
        }
        parts.push(part);
    }
    Ok(parts.join("/"))
}

/// Returns the name of the file that the symbolic link `name`, which is normal, leads to.
///
/// # Errors
/// [`Error::Link`] for one that leads out of the archive.
pub(crate) fn target_of(name: &str, target: &[u8]) -> Result<String> {
    let refuse = |reason| Error::Link {
        name: name.to_owned(),
        target: target.get(..NAME_MAX).unwrap_or(target).escape_ascii().to_string(),
        reason,
    };
    if target.len() > NAME_MAX {
        return Err(refuse("it has more than 4096 bytes"));
    }
    let text = str::from_utf8(target).map_err(|_| refuse("it is no UTF-8"))?;
    if text.starts_with('/') {
        return Err(refuse("it leads out of the archive"));
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part != ".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return Err(refuse("it leads out of the archive"));
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_means_nothing() {
        for (path, name) in [
            ("a", Some("a")),
            ("./a//b/", Some("a/b")),
            ("a/./b", Some("a/b")),
            ("./", Some("")),
            ("..a/b..", Some("..a/b..")),
            ("../a", None),
            ("a/../b", None),
            ("/a", None),
        ] {
            assert_eq!(normal(path.as_bytes()).ok().as_deref(), name, "{path}");
        }
        assert!(matches!(normal(b"\xff"), Err(Error::Name { .. })));
    }

    #[test]
    fn links_are_followed_from_where_they_are() {
        for (name, target, to) in [
            ("b/layer.tar", "../a/layer.tar", Some("a/layer.tar")),
            ("link", "a/layer.tar", Some("a/layer.tar")),
            ("b/link", "other", Some("b/other")),
            ("b/link", "./.././a", Some("a")),
            ("b/link", "../../a", None),
            ("link", "../a", None),
            ("link", "/etc/passwd", None),
        ] {
            assert_eq!(target_of(name, target.as_bytes()).ok().as_deref(), to, "{name} {target}");
        }
        let error = target_of("x", b"/etc").unwrap_err().to_string();
        assert_eq!(error, r#""x" is a link to "/etc": it leads out of the archive"#);
    }
}
