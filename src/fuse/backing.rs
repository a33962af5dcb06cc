//! Files whose contents the kernel reads and writes itself (passthrough).
//!
//! The kernel is given the file that has a content, has a number for it, and is told that number when a
//! program opens the file of the mount. Its rules: all who have a file open at one time reach its
//! content in one way, and by one number. So what is open is counted, and whoever comes in between gets
//! what the others have. What is counted here the kernel may have let go of already; never the other way
//! round.
//!
//! What a program changes through a mapping nobody is told of. Of a file that may be mapped so the
//! kernel must not keep attributes.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use crate::overlay::{Ino, Result};
use crate::sys;

/// The kernel's side.
pub(crate) trait Numbers: Debug + Send + Sync {
    /// Gives the kernel a file to read and write itself; returns the number that it has for it.
    fn open_backing(&self, file: BorrowedFd<'_>) -> sys::Result<i32>;

    /// Takes such a file back. Who has it open keeps it.
    fn close_backing(&self, number: i32);
}

/// How an open file reaches its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the server; the kernel keeps what it was told.
    Cached,
    /// Through the server, and what the kernel has kept of it may be old: others may have written to the
    /// backing file.
    Anew,
    /// By the backing file with this number.
    Through(i32),
}

/// Whether a backing file stays good when nobody has the file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The content never changes its place.
    Numbers,
    /// It may be deleted, and shall be gone then.
    Nothing,
}

/// A file that programs have open.
#[derive(Clone, Copy, Debug)]
struct Open {
    way: Way,
    times: u64,
}

#[derive(Debug)]
struct Shard {
    open: HashMap<Ino, Open>,
    /// Numbers of files that nobody has open.
    idle: LruCache<Ino, i32>,
}

const SHARDS: usize = 8;
/// How many numbers each part of the table keeps for who opens the file again.
const IDLE: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The files that programs have open, where the kernel asks when they are opened.
#[derive(Debug)]
pub(crate) struct Backings {
    kernel: Arc<dyn Numbers>,
    keep: Keep,
    shards: [Mutex<Shard>; SHARDS],
    /// Files that may be changed through a mapping.
    mapped: Mutex<HashSet<Ino>>,
    mapped_count: AtomicUsize,
}

impl Backings {
    pub(crate) fn new(kernel: Arc<dyn Numbers>, keep: Keep) -> Self {
        let shard = |_| Mutex::new(Shard { open: HashMap::new(), idle: LruCache::new(IDLE) });
        let (mapped, mapped_count) = (Mutex::default(), AtomicUsize::new(0));
        Self { kernel, keep, shards: std::array::from_fn(shard), mapped, mapped_count }
    }

    /// Notes that a file is opened; returns the way to its content. `backing` returns the file that has
    /// it, if the kernel may have that.
    pub(crate) fn open(
        &self,
        ino: Ino,
        backing: impl FnOnce() -> Result<Option<Arc<File>>>,
    ) -> Result<Way> {
        let mut shard = self.shard(ino).lock();
        if let Some(open) = shard.open.get_mut(&ino) {
            open.times += 1;
            return Ok(open.way);
        }
        let way = match shard.idle.pop(&ino) {
            Some(number) => Way::Through(number),
            None => backing()?.map_or(Way::Cached, |file| self.way_of(&file)),
        };
        shard.open.insert(ino, Open { way, times: 1 });
        Ok(way)
    }

    fn way_of(&self, file: &File) -> Way {
        match self.kernel.open_backing(file.as_fd()) {
            Ok(number) => Way::Through(number),
            Err(error) => {
                tracing::debug!("{error}; the content goes through the server");
                Way::Anew
            }
        }
    }

    /// Notes that a file is closed once.
    pub(crate) fn close(&self, ino: Ino) {
        let mut shard = self.shard(ino).lock();
        let Some(open) = shard.open.get_mut(&ino) else { return };
        open.times -= 1;
        if open.times > 0 {
            return;
        }
        let way = open.way;
        shard.open.remove(&ino);
        let Way::Through(number) = way else { return };
        let unused = match self.keep {
            Keep::Numbers => shard.idle.push(ino, number).map(|(_, number)| number),
            Keep::Nothing => Some(number),
        };
        if let Some(number) = unused {
            self.kernel.close_backing(number);
        }
    }

    /// Notes that a file may be changed through a mapping from now on; tells whether that is new.
    pub(crate) fn may_be_mapped(&self, ino: Ino) -> bool {
        let is_new = self.mapped.lock().insert(ino);
        self.mapped_count.fetch_add(usize::from(is_new), Ordering::SeqCst);
        is_new
    }

    /// Tells whether a file may be changed without anybody being told.
    pub(crate) fn is_mapped(&self, ino: Ino) -> bool {
        self.mapped_count.load(Ordering::SeqCst) > 0 && self.mapped.lock().contains(&ino)
    }

    /// Notes that the kernel does not know a file any more.
    pub(crate) fn forget(&self, ino: Ino) {
        if self.mapped_count.load(Ordering::SeqCst) > 0 && self.mapped.lock().remove(&ino) {
            self.mapped_count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[allow(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 8")]
    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        &self.shards[(ino.0 % SHARDS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;

    /// Gives numbers from 1 on, and knows which it has given. `refuses` files from then on.
    #[derive(Debug, Default)]
    struct Kernel(Mutex<State>);

    #[derive(Debug, Default)]
    struct State {
        last: i32,
        given: Vec<i32>,
        refuses: bool,
    }

    impl Numbers for Kernel {
        fn open_backing(&self, _: BorrowedFd<'_>) -> sys::Result<i32> {
            let mut state = self.0.lock();
            if state.refuses {
                return Err(sys::Error::new("open", Errno::ENOMEM));
            }
            state.last += 1;
            let number = state.last;
            state.given.push(number);
            Ok(number)
        }

        fn close_backing(&self, number: i32) {
            let mut state = self.0.lock();
            let at = state.given.iter().position(|given| *given == number).unwrap();
            state.given.remove(at);
        }
    }

    fn backings(keep: Keep) -> (Arc<Kernel>, Backings) {
        let kernel = Arc::new(Kernel::default());
        (Arc::clone(&kernel), Backings::new(kernel, keep))
    }

    #[allow(clippy::unnecessary_wraps, reason = "as the overlay answers")]
    fn some() -> Result<Option<Arc<File>>> {
        Ok(Some(Arc::new(File::open("/dev/null").unwrap())))
    }

    const INO: Ino = Ino(5);

    #[test]
    fn all_who_have_a_file_open_at_one_time_have_it_in_one_way() {
        let (kernel, backings) = backings(Keep::Nothing);
        assert_eq!(backings.open(INO, || Ok(None)).unwrap(), Way::Cached);
        // It has been copied up meanwhile.
        assert_eq!(backings.open(INO, some).unwrap(), Way::Cached);
        backings.close(INO);
        assert_eq!(backings.open(INO, some).unwrap(), Way::Cached);
        backings.close(INO);
        backings.close(INO);
        assert_eq!(backings.open(INO, some).unwrap(), Way::Through(1));
        assert_eq!(backings.open(INO, || panic!("it is open")).unwrap(), Way::Through(1));
        assert_eq!(backings.open(Ino(13), some).unwrap(), Way::Through(2));
        backings.close(INO);
        assert_eq!(kernel.0.lock().given, [1, 2]);
        backings.close(INO);
        assert_eq!(kernel.0.lock().given, [2]);
    }

    #[test]
    fn numbers_of_what_never_changes_are_kept_up_to_so_many() {
        let (kernel, backings) = backings(Keep::Numbers);
        for _ in 0..3 {
            assert_eq!(backings.open(INO, some).unwrap(), Way::Through(1));
            backings.close(INO);
        }
        for ino in 100..2000 {
            backings.open(Ino(ino), some).unwrap();
            backings.close(Ino(ino));
        }
        assert_eq!(kernel.0.lock().given.len(), SHARDS * IDLE.get());
        assert_eq!(backings.open(INO, some).unwrap(), Way::Through(1902));
    }

    #[test]
    fn what_the_kernel_refuses_it_reads_anew() {
        let (kernel, backings) = backings(Keep::Nothing);
        kernel.0.lock().refuses = true;
        assert_eq!(backings.open(INO, some).unwrap(), Way::Anew);
        backings.close(INO);
        kernel.0.lock().refuses = false;
        assert_eq!(backings.open(INO, some).unwrap(), Way::Through(1));
    }

    #[test]
    fn what_may_be_mapped_is_so_until_it_is_forgotten() {
        let (_, backings) = backings(Keep::Nothing);
        assert!(!backings.is_mapped(INO));
        assert!(backings.may_be_mapped(INO));
        assert!(!backings.may_be_mapped(INO));
        assert!(backings.is_mapped(INO) && !backings.is_mapped(Ino(6)));
        backings.forget(INO);
        assert!(!backings.is_mapped(INO));
    }
}
