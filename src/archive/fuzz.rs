//! What fuzzing does with this room: archives that are anything, and names of their files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use crate::archive::document::parse_manifest;
use crate::archive::name::{normal, target_of};
use crate::archive::*;

/// The files of a tar, where they are.
struct Files {
    tar: File,
    contents: Contents<Range>,
}

impl Source for Files {
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(range) = self.contents.find(name)? else { return Ok(None) };
        let (file, found_bytes) = (name.to_owned(), range.size);
        if found_bytes > DOCUMENT_LIMIT_BYTES {
            let limit_bytes = DOCUMENT_LIMIT_BYTES;
            return Err(Error::DocumentSize { file, found_bytes, limit_bytes });
        }
        let mut bytes = vec![0; usize::try_from(found_bytes).expect("it was held to a limit")];
        self.tar.read_exact_at(&mut bytes, range.offset)?;
        Ok(Some(bytes))
    }

    fn has(&self, name: &str) -> Result<bool> {
        Ok(self.contents.find(name)?.is_some())
    }
}

/// Looks for the images of an archive, in `tar`, which holds it.
pub(crate) fn archive(mut tar: File) {
    let contents = scan_seekable(&tar);
    tar.seek(SeekFrom::Start(0)).expect("a file of memory");
    let read = scan(&tar, &mut |name, size, content| {
        assert!(!name.starts_with('/') && !name.split('/').any(|part| part == ".."));
        let read = std::io::copy(&mut content.take(size), &mut std::io::sink());
        read.map(drop).map_err(Error::from)
    });
    // Where one way finds something wrong, so does the other.
    assert_eq!(read.is_ok(), contents.is_ok(), "{read:?} {contents:?}");
    let Ok(contents) = contents else { return };
    let files = Files { tar, contents };
    for platform in [None, Some(crate::image::Platform::host())] {
        if let Ok(found) = images(&files, platform.as_ref()) {
            for image in found.images {
                assert_eq!(image.layers.len(), image.config.rootfs.diff_ids.len());
            }
        }
    }
}

/// Reads the name of a file, and where a link of that name leads; a zero is between them.
pub(crate) fn names(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let Ok(name) = normal(parts.next().unwrap_or_default()) else { return };
    let is_inside = |name: &str| !name.starts_with('/') && !name.split('/').any(|p| p == "..");
    assert!(is_inside(&name), "{name}");
    let target = target_of(&name, parts.next().unwrap_or_default());
    assert!(target.is_ok_and(|target| is_inside(&target)) || !data.is_empty());
    drop((digest_in(&name), parse_manifest(data)));
}
