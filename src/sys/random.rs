//! Random bytes from the kernel.

use crate::sys::error::check;
use crate::sys::{Errno, Result};

/// Returns `N` random bytes (`getrandom`; at most 256, which the kernel gives whole).
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    const { assert!(N <= 256) };
    let mut bytes = [0; N];
    // SAFETY: the pointer and the length are those of `bytes`.
    let result = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    check(Errno::result(result), || "getrandom()")?;
    Ok(bytes)
}
