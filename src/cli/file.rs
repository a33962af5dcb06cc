//! Writing a file that a person names, so that it is there whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cli::error::Failure;

/// Bytes written at once.
pub(crate) const BUFFER: usize = 128 * 1024;

/// Calls `write` with the file `path`, made with the permissions `mode`. What is there under the name
/// stays until the new one is whole; what is no regular file, as `/dev/stdout`, is written to.
pub(crate) fn write_file(
    path: &Path,
    mode: u32,
    write: impl FnOnce(BufWriter<&File>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        check_dir(dir)?;
    }
    let fail = |error: io::Error| Failure::text(format!("{}: {error}", path.display()));
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options().write(true).open(path).map_err(fail)?;
        return write(BufWriter::with_capacity(BUFFER, &file));
    }
    let mut partial = path.to_owned().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = new_file(&partial, mode).map_err(fail)?;
    let written = write(BufWriter::with_capacity(BUFFER, &file))
        .and_then(|()| file.sync_all().and_then(|()| fs::rename(&partial, path)).map_err(fail));
    if written.is_err() {
        drop(fs::remove_file(&partial));
    }
    written
}

/// Makes a file in place of one of that name: in a directory that others write to, what is there could be
/// theirs, or lead to a file of ours.
fn new_file(path: &Path, mode: u32) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(mode).open(path)
}

/// Checks that there is a directory for a file to be written to.
fn check_dir(dir: &Path) -> Result<(), Failure> {
    match fs::metadata(dir) {
        Ok(metadata) if !metadata.is_dir() => {
            Err(Failure::text(format!("invalid output path: {dir:?} is not a directory")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::text(format!("invalid output path: directory {dir:?} does not exist")))
        }
        // What else there may be, writing will tell.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_only_by_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let failed = write_file(&path, 0o600, |mut file| {
            file.write_all(b"half")?;
            Err(Failure::text("broken"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        write_file(&path, 0o600, |mut file| {
            file.write_all(b"new")?;
            Ok(file.flush()?)
        })
        .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn regression_a_directory_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for (name, expected) in [
            ("none/x", "none\" does not exist"),
            ("none/y/x", "none/y\" does not exist"),
            ("file/x", "file\" is not a directory"),
        ] {
            let failed = write_file(&folder.path().join(name), 0o600, |_| Ok(()));
            let Err(Failure::Text(said)) = failed else { panic!("{name} was written") };
            assert!(said.ends_with(expected), "{said}");
        }
    }

    #[test]
    fn regression_what_lies_in_the_way_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        fs::write(&other, "mine").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join("file.partial")).unwrap();
        write_file(&path, 0o600, |mut file| Ok(file.write_all(b"new")?)).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn regression_a_device_is_written_to_and_not_replaced() {
        write_file(Path::new("/dev/null"), 0o600, |mut file| Ok(file.write_all(b"x")?)).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
