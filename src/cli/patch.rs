//! Patches of files, in the form of git: `git apply` and `patch -p1` take those of text files.

use std::io::Write;
use std::time::Duration;

use similar::TextDiff;

use crate::cli::error::Failure;
use crate::service::{FileChange, FileSide, Kind};

/// The largest file that is compared line by line.
const LIMIT_BYTES: u64 = 16 << 20;
/// So many bytes are looked at to tell whether a file is text, as git does.
const LOOKED_AT: usize = 8000;
/// After this time the shortest patch is not looked for any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the patch of a file, or a line that is no patch and says why; nothing if only its owner,
/// its time or extended attributes differ.
pub(crate) fn write(change: &FileChange<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) if before.kind != after.kind => {
            write_one(&change.path, Some(before), None, false, out)?;
            write_one(&change.path, None, Some(after), false, out)
        }
        (before, after) => {
            write_one(&change.path, before.as_ref(), after.as_ref(), change.same_content, out)
        }
    }
}

fn write_one(
    path: &[u8],
    before: Option<&FileSide<'_>>,
    after: Option<&FileSide<'_>>,
    same_content: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let (a, b) = (quoted(b"a", path), quoted(b"b", path));
    let modes = match (before.map(mode), after.map(mode)) {
        (None, Some(new)) => format!("new file mode {new:06o}\n"),
        (Some(old), None) => format!("deleted file mode {old:06o}\n"),
        (Some(old), Some(new)) if old != new => {
            if same_content && is_executable(old) == is_executable(new) {
                // git knows no other mode, and refuses a patch that changes nothing.
                let text = format!(" differ: {old:06o}, {new:06o}\n");
                return Ok(
                    out.write_all(&[b"Modes of ", &a[..], b" and ", &b, text.as_bytes()].concat())?
                );
            }
            format!("old mode {old:06o}\nnew mode {new:06o}\n")
        }
        _ => String::new(),
    };
    if same_content && modes.is_empty() {
        return Ok(());
    }
    let header = [b"diff --git ", &a[..], b" ", &b, b"\n", modes.as_bytes()].concat();
    let a = if before.is_some() { a } else { b"/dev/null".to_vec() };
    let b = if after.is_some() { b } else { b"/dev/null".to_vec() };
    let sides = || [before, after].into_iter().flatten();
    let (old, new) = match (text_of(before)?, text_of(after)?) {
        _ if same_content => (Vec::new(), Vec::new()),
        (Some(old), Some(new)) => (old, new),
        _ => {
            let has_content =
                |side: &FileSide<'_>| matches!(side.kind, Kind::Regular | Kind::Symlink);
            let what: &[u8] = if sides().all(has_content) { b"Binary" } else { b"Special" };
            return Ok(
                out.write_all(&[what, b" files ", &a[..], b" and ", &b, b" differ\n"].concat())?
            );
        }
    };
    out.write_all(&header)?;
    Ok(out.write_all(&lines(&old, &new, &a, &b))?)
}

/// Tells whether a file can be executed, all that git knows of its mode.
const fn is_executable(mode: u32) -> bool {
    mode & 0o100 != 0
}

/// Returns type and permissions; git knows none of a link.
fn mode(side: &FileSide<'_>) -> u32 {
    if side.kind == Kind::Symlink { 0o120_000 } else { side.mode }
}

/// Returns the content of a text file, or nothing for a file that is not there; none of another.
fn text_of(side: Option<&FileSide<'_>>) -> Result<Option<Vec<u8>>, Failure> {
    let Some(side) = side else { return Ok(Some(Vec::new())) };
    let content = side.read(LIMIT_BYTES)?;
    Ok(content.filter(|bytes| !bytes.iter().take(LOOKED_AT).any(|byte| *byte == 0)))
}

/// Returns the lines that differ, with their surroundings; nothing if none do.
fn lines(old: &[u8], new: &[u8], a: &[u8], b: &[u8]) -> Vec<u8> {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(old, new);
    let mut text = Vec::new();
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        if text.is_empty() {
            text = [b"--- ", a, b"\n+++ ", b, b"\n"].concat();
        }
        text.extend_from_slice(format!("{}\n", hunk.header()).as_bytes());
        for change in hunk.iter_changes() {
            text.extend_from_slice(change.tag().to_string().as_bytes());
            text.extend_from_slice(change.value());
            if !change.value().ends_with(b"\n") {
                text.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    }
    text
}

/// Returns a name below `side`, in quotation marks and with escapes where git would write it so.
fn quoted(side: &[u8], path: &[u8]) -> Vec<u8> {
    let plain = [side, path].concat();
    let is_odd = |byte: &u8| !matches!(byte, b' '..=b'~') || b"\"\\".contains(byte);
    if !plain.iter().any(is_odd) {
        return plain;
    }
    let mut text = b"\"".to_vec();
    for byte in plain {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', byte]),
            b'\n' => text.extend(b"\\n"),
            b'\t' => text.extend(b"\\t"),
            byte if is_odd(&byte) => text.extend(format!("\\{byte:03o}").bytes()),
            byte => text.push(byte),
        }
    }
    text.push(b'"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_with_their_surroundings() {
        let old = b"1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = b"1\n2\n3\n4\nfive\n6\n7\n8\n9\nlast \xff";
        let expected =
            b"--- a/x\n+++ b/x\n@@ -2,8 +2,9 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n\
                         +last \xff\n\\ No newline at end of file\n";
        let found = lines(old, new, b"a/x", b"b/x");
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(expected));
        assert_eq!(lines(b"", b"a\n", b"a/x", b"b/x"), b"--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+a\n");
        assert_eq!(lines(b"", b"", b"a", b"b"), b"");
    }

    #[test]
    fn odd_names_are_quoted_as_git_quotes_them() {
        for (path, expected) in [
            (&b"/etc/a b"[..], &b"a/etc/a b"[..]),
            (b"/a\"b", b"\"a/a\\\"b\""),
            (b"/a\nb\\", b"\"a/a\\nb\\\\\""),
            (b"/n\xff", b"\"a/n\\377\""),
        ] {
            assert_eq!(quoted(b"a", path), expected);
        }
    }
}
