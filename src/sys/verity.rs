//! fs-verity: files that the kernel checks against what they were, whenever it reads them.
//!
//! Linux, Documentation/filesystems/fsverity.rst: a file of a file system that has it (ext4, btrfs and
//! f2fs, where it was turned on) is sealed for ever; the kernel keeps a tree of sums of its blocks.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::error::check_raw;
use crate::sys::{Errno, Error, Result};

/// The longest digest that the kernel has, of sha512.
const DIGEST_MAX: usize = 64;
const SHA256: u32 = 1;
const BLOCK_BYTES: u32 = 4096;

/// The kernel's `fsverity_enable_arg`.
#[repr(C)]
#[derive(Default)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// The kernel's `fsverity_digest`, with room for the longest.
#[repr(C)]
struct DigestBuffer {
    algorithm: u16,
    size: u16,
    digest: [u8; DIGEST_MAX],
}

/// `FS_IOC_ENABLE_VERITY`.
const ENABLE: libc::c_ulong = nix::request_code_write!(b'f', 133, size_of::<EnableArg>());
/// `FS_IOC_MEASURE_VERITY`; the argument is said to have only its first 4 bytes.
const MEASURE: libc::c_ulong = nix::request_code_readwrite!(b'f', 134, 4);

/// What stands for all of a file that the kernel checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerityDigest {
    algorithm: u16,
    digest: Vec<u8>,
}

/// Seals a file that is open for reading, and that nobody has open for writing.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where the file system has no fs-verity, `EEXIST` when the file is sealed
/// already, `EACCES` or `EPERM` when it is somebody else's.
pub fn enable_verity(fd: BorrowedFd<'_>) -> Result<()> {
    let arg = EnableArg {
        version: 1,
        hash_algorithm: SHA256,
        block_size: BLOCK_BYTES,
        ..EnableArg::default()
    };
    // SAFETY: the descriptor is open for the length of the call, and `arg` outlives it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), ENABLE, &raw const arg) };
    check_raw(result, || format!("ioctl({}, FS_IOC_ENABLE_VERITY)", fd.as_raw_fd())).map(drop)
}

/// Returns what a sealed file is checked against; none for one that is not sealed.
pub fn measure_verity(fd: BorrowedFd<'_>) -> Result<Option<VerityDigest>> {
    let size = u16::try_from(DIGEST_MAX).unwrap_or(u16::MAX);
    let mut buffer = DigestBuffer { algorithm: 0, size, digest: [0; DIGEST_MAX] };
    // SAFETY: the buffer has as much room behind its first 4 bytes as it says, and outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), MEASURE, &raw mut buffer) };
    let call = || format!("ioctl({}, FS_IOC_MEASURE_VERITY)", fd.as_raw_fd());
    match check_raw(result, call) {
        Ok(_) => {
            let digest = buffer.digest.iter().take(buffer.size.into()).copied().collect();
            Ok(Some(VerityDigest { algorithm: buffer.algorithm, digest }))
        }
        Err(error) if is_not_sealed(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells whether the file system of a file that is open for reading, and not sealed, has fs-verity.
pub fn has_verity(fd: BorrowedFd<'_>) -> Result<bool> {
    let mut first = [0_u16; 2];
    // SAFETY: the argument is said to have no room behind its first 4 bytes, and outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), MEASURE, first.as_mut_ptr()) };
    let call = || format!("ioctl({}, FS_IOC_MEASURE_VERITY)", fd.as_raw_fd());
    match check_raw(result, call) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.errno(), Errno::ENODATA | Errno::EOVERFLOW) => Ok(true),
        Err(error) if is_not_sealed(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_not_sealed(error: &Error) -> bool {
    matches!(error.errno(), Errno::ENODATA | Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_is_sealed_or_the_file_system_says_that_it_cannot() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"content").unwrap();
        let path = file.into_temp_path();
        let open = std::fs::File::open(&path).unwrap();
        assert_eq!(measure_verity(open.as_fd()).unwrap(), None);
        let has = has_verity(open.as_fd()).unwrap();
        match enable_verity(open.as_fd()) {
            Ok(()) => {
                assert!(has && measure_verity(open.as_fd()).unwrap().is_some());
                assert!(std::fs::write(&path, "other").is_err());
            }
            Err(error) => {
                let refused = [Errno::ENOTTY, Errno::EOPNOTSUPP, Errno::EACCES, Errno::EPERM];
                assert!(refused.contains(&error.errno()), "{error}");
                assert_eq!(measure_verity(open.as_fd()).unwrap(), None);
            }
        }
    }
}
