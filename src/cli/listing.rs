//! Lines of files, as ls(1) and find(1) print them.

use std::io::{self, IsTerminal};

use jiff::tz::TimeZone;

use crate::service::{Kind, Time, TreeFile};

/// Returns the bytes of a name as they are printed: to a terminal without control characters.
pub(crate) fn shown(name: &[u8]) -> Vec<u8> {
    if !io::stdout().is_terminal() {
        return name.to_vec();
    }
    name.iter().map(|byte| if byte.is_ascii_control() { b'?' } else { *byte }).collect()
}

/// Returns a name or a line as text: what is not UTF-8, and characters that are not seen or would change
/// what is seen, are escaped.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                // Marks that turn the direction of what follows, and those without a width.
                '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' => {
                    text.extend(letter.escape_unicode());
                }
                _ if letter.is_control() => text.extend(letter.escape_default()),
                _ => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Returns the letters of type and permissions: `drwxr-xr-x`.
pub(crate) fn mode(file: &TreeFile) -> String {
    let kind = match file.kind {
        Kind::Regular => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Character => 'c',
        Kind::Block => 'b',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    };
    let mut text = String::from(kind);
    // Of each class: its bits, the special bit that shows in its place of execution, its letters.
    for (shift, special, letters) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
        let bits = file.permissions >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        let executes = bits & 1 != 0;
        let special = file.permissions & special != 0;
        text.push(match (special, executes) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, executes) => letters.as_bytes()[usize::from(!executes)].into(),
        });
    }
    text
}

/// Returns the size of a file, or the numbers of a device.
pub(crate) fn size(file: &TreeFile) -> String {
    match file.kind {
        Kind::Character | Kind::Block => format!("{}, {}", file.device.0, file.device.1),
        _ => file.size.to_string(),
    }
}

/// Returns a time in UTC, to the minute.
pub(crate) fn time(time: Time) -> String {
    match jiff::Timestamp::from_second(time.secs) {
        Ok(stamp) => stamp.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M").to_string(),
        Err(_) => time.secs.to_string(),
    }
}

/// Adds what a symbolic link leads to.
pub(crate) fn with_target(mut name: Vec<u8>, file: &TreeFile) -> Vec<u8> {
    if let Some(target) = &file.target {
        name.extend_from_slice(b" -> ");
        name.extend_from_slice(&shown(target));
    }
    name
}

/// Returns lines of attributes and names, in columns.
pub(crate) fn long<'a>(files: impl Iterator<Item = (&'a TreeFile, Vec<u8>)> + Clone) -> Vec<u8> {
    let width = |of: fn(&TreeFile) -> String| {
        files.clone().map(|(file, _)| of(file).len()).max().unwrap_or_default()
    };
    let links: fn(&TreeFile) -> String = |file| file.links.to_string();
    let uid: fn(&TreeFile) -> String = |file| file.uid.to_string();
    let gid: fn(&TreeFile) -> String = |file| file.gid.to_string();
    let widths = [width(links), width(uid), width(gid), width(size)];
    let mut text = Vec::new();
    for (file, name) in files.clone() {
        let [links, uid, gid, size] = [links, uid, gid, size].map(|of| of(file));
        let line = format!(
            "{} {links:>w0$} {uid:<w1$} {gid:<w2$} {size:>w3$} {} ",
            mode(file),
            time(file.modified),
            w0 = widths[0],
            w1 = widths[1],
            w2 = widths[2],
            w3 = widths[3],
        );
        text.extend_from_slice(line.as_bytes());
        text.extend_from_slice(&with_target(name, file));
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: Kind, permissions: u32) -> TreeFile {
        TreeFile {
            path: b"/dir/name".to_vec(),
            kind,
            permissions,
            links: 1,
            uid: 0,
            gid: 42,
            size: 7,
            device: (8, 1),
            modified: Time { secs: 1_000_000_000, nanos: 0 },
            target: (kind == Kind::Symlink).then(|| b"there".to_vec()),
            is_empty: false,
        }
    }

    #[test]
    fn modes_are_written_as_ls_writes_them() {
        for (kind, permissions, letters) in [
            (Kind::Directory, 0o1777, "drwxrwxrwt"),
            (Kind::Regular, 0o4755, "-rwsr-xr-x"),
            (Kind::Regular, 0o2644, "-rw-r-Sr--"),
            (Kind::Fifo, 0o1000, "p--------T"),
            (Kind::Socket, 0, "s---------"),
        ] {
            assert_eq!(mode(&file(kind, permissions)), letters);
        }
    }

    #[test]
    fn what_would_not_be_seen_as_it_is_is_escaped() {
        for (bytes, text) in [
            (&b"plain \xc3\xa4\xe4\xb8\xad"[..], "plain ä中"),
            (b"\x1b[2J\n\t\x7f", "\\u{1b}[2J\\n\\t\\u{7f}"),
            (b"a\xff\xc3b", "a\\xff\\xc3b"),
            ("turn\u{202e}ed\u{200b}".as_bytes(), "turn\\u{202e}ed\\u{200b}"),
        ] {
            assert_eq!(escaped(bytes), text);
        }
    }

    #[test]
    fn lines_are_in_columns() {
        let files = [file(Kind::Block, 0o660), file(Kind::Symlink, 0o777)];
        let lines = long(files.iter().map(|file| (file, file.name().to_vec())));
        let expected = "brw-rw---- 1 0 42 8, 1 2001-09-09 01:46 name\n\
                        lrwxrwxrwx 1 0 42    7 2001-09-09 01:46 name -> there\n";
        assert_eq!(String::from_utf8_lossy(&lines), expected);
    }
}
