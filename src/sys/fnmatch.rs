//! Matching names with patterns of the shell.

use std::ffi::CString;

/// Tells whether `name` fits `pattern`: `*`, `?`, `[a-z]` and backslashes, in which a slash or a dot at
/// the beginning means nothing in particular. What holds
/// a zero fits nothing.
pub fn fnmatch(pattern: &[u8], name: &[u8]) -> bool {
    let (Ok(pattern), Ok(name)) = (CString::new(pattern), CString::new(name)) else { return false };
    // SAFETY: both are strings that end with a zero and live until the call returns.
    unsafe { libc::fnmatch(pattern.as_ptr(), name.as_ptr(), 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_and_paths() {
        for (pattern, name) in
            [("*.conf", "a.conf"), ("*", ".hidden"), ("/usr/*", "/usr/bin/x"), ("[a-c]?", "bz")]
        {
            assert!(fnmatch(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        assert!(!fnmatch(b"*.conf", b"conf"));
        assert!(!fnmatch(b"a\0b", b"a"));
        assert!(fnmatch(b"*", b"\xff\xfe"));
    }
}
