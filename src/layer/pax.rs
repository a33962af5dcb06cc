//! The records of a PAX extension header: `<length> <key>=<value>\n`.

use std::collections::BTreeMap;

/// Prefix of the records that hold extended attributes.
pub(crate) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// The records that apply to the next entry.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The pieces of a sparse file in GNU's format 0.0, which repeats its keys.
    sparse_pieces: Vec<Vec<u8>>,
}

/// What the records say of a sparse file.
#[derive(Debug)]
pub(crate) struct PaxSparse {
    pub(crate) real_size: Vec<u8>,
    pub(crate) name: Option<Vec<u8>>,
    /// Offsets and lengths with commas; none when the map is at the beginning of the content.
    pub(crate) map: Option<Vec<u8>>,
}

impl Pax {
    /// Adds the records of one extension header; later ones replace earlier ones.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub(crate) fn add(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            let (key, value, rest) = split_record(bytes).ok_or("an extension record is damaged")?;
            bytes = rest;
            if matches!(key, b"path" | b"linkpath") && value.contains(&0) {
                return Err("a name has a NUL in it");
            }
            if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                self.sparse_pieces.push(value.to_vec());
            } else if value.is_empty() && !key.starts_with(XATTR_PREFIX) {
                // An empty value takes back what an earlier record said.
                self.records.remove(key);
            } else {
                self.records.insert(key.to_vec(), value.to_vec());
            }
        }
        Ok(())
    }

    /// Takes the record with this key.
    pub(crate) fn take(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.records.remove(key)
    }

    /// Takes the extended attributes.
    pub(crate) fn take_xattrs(&mut self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut xattrs = BTreeMap::new();
        self.records.retain(|key, value| match key.strip_prefix(XATTR_PREFIX) {
            Some(name) => {
                xattrs.insert(name.to_vec(), std::mem::take(value));
                false
            }
            None => true,
        });
        xattrs
    }

    /// Takes what makes the entry a sparse file, if it is one.
    pub(crate) fn take_sparse(&mut self) -> Option<PaxSparse> {
        let name = self.take(b"GNU.sparse.name");
        let real_size = self.take(b"GNU.sparse.realsize").or_else(|| self.take(b"GNU.sparse.size"));
        let map = self.take(b"GNU.sparse.map");
        let pieces = std::mem::take(&mut self.sparse_pieces);
        let map = map.or_else(|| (!pieces.is_empty()).then(|| pieces.join(&b',')));
        let major = self.take(b"GNU.sparse.major");
        if map.is_none() && major.as_deref() != Some(b"1") {
            return None;
        }
        Some(PaxSparse { real_size: real_size?, name, map })
    }
}

/// Splits the first record off: its key, its value, what follows.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((record.get(..equals)?, record.get(equals + 1..)?, bytes.get(len..)?))
}

/// Returns a record for an extension header.
pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    // The length counts its own digits: one more of them may be what makes it longer.
    let rest = key.len() + value.len() + " =\n".len();
    let mut len = rest + 1;
    while len.to_string().len() + rest != len {
        len = len.to_string().len() + rest;
    }
    let mut bytes = format!("{len} ").into_bytes();
    for part in [key, b"=", value, b"\n"] {
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_at_their_length() {
        let mut pax = Pax::default();
        let value = b"a=b\nc 12";
        let bytes = [record(b"path", value), record(b"mtime", b"1.5")].concat();
        pax.add(&bytes).unwrap();
        assert_eq!(pax.take(b"path").as_deref(), Some(&value[..]));
        assert_eq!(pax.take(b"mtime").as_deref(), Some(&b"1.5"[..]));
        assert_eq!(pax.take(b"mtime"), None);
    }

    #[test]
    fn a_record_counts_the_digits_of_its_length() {
        for len in 0..1200 {
            let bytes = record(b"k", &vec![b'v'; len]);
            let (number, _) = bytes.split_at(bytes.iter().position(|b| *b == b' ').unwrap());
            assert_eq!(std::str::from_utf8(number).unwrap(), bytes.len().to_string());
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for bytes in
            ["x", "5", "99 path=a\n", "9 path=ab", "4 a\n", "0 a=b\n", "-1 a=b\n", "7 a=b\n"]
        {
            assert!(Pax::default().add(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        assert!(Pax::default().add(&record(b"path", b"a\0b")).is_err());
    }

    #[test]
    fn an_empty_value_takes_a_record_back_but_is_an_attribute() {
        let mut pax = Pax::default();
        pax.add(&record(b"path", b"a")).unwrap();
        pax.add(&record(b"path", b"")).unwrap();
        pax.add(&record(b"SCHILY.xattr.user.empty", b"")).unwrap();
        assert_eq!(pax.take(b"path"), None);
        assert_eq!(pax.take_xattrs().get(&b"user.empty"[..]), Some(&Vec::new()));
    }

    #[test]
    fn sparse_files_are_known_in_all_formats() {
        for (records, map) in [
            (
                &[
                    ("GNU.sparse.size", "9"),
                    ("GNU.sparse.offset", "1"),
                    ("GNU.sparse.numbytes", "2"),
                    ("GNU.sparse.offset", "5"),
                    ("GNU.sparse.numbytes", "4"),
                ][..],
                Some("1,2,5,4"),
            ),
            (&[("GNU.sparse.size", "9"), ("GNU.sparse.map", "1,2")], Some("1,2")),
            (&[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "9")], None),
        ] {
            let mut pax = Pax::default();
            for (key, value) in records {
                pax.add(&record(key.as_bytes(), value.as_bytes())).unwrap();
            }
            let sparse = pax.take_sparse().unwrap();
            assert_eq!(sparse.real_size, b"9");
            assert_eq!(sparse.map.as_deref(), map.map(str::as_bytes));
        }
        assert!(Pax::default().take_sparse().is_none());
    }
}
