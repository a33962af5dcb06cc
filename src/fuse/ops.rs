//! One method for each request of the kernel: decode, call, answer.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use zerocopy::IntoBytes;

use crate::fuse::abi::{
    BatchForgetIn, CopyFileRangeIn, CopyFileRangeOut, CreateIn, FSYNC_FDATASYNC, FallocateIn,
    ForgetIn, ForgetOne, FsyncIn, LinkIn, LseekIn, LseekOut, MkdirIn, MknodIn, OpenIn, OpenOut,
    ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn, StatfsOut, WRITE_KILL_SUIDGID, WriteIn,
    WriteOut, fattr, fopen, opcode,
};
use crate::fuse::answer::Answer;
use crate::fuse::backing::{Backings, Keep, Way};
use crate::fuse::convert::{attr_out, entry_out, nothing, open_out, rename_how, set_attr};
use crate::fuse::device::Device;
use crate::fuse::request::{Args, Request, handle};
use crate::fuse::told::Told;
use crate::overlay::{Attr, Error, Fh, Ino, Kind, NewFile, Overlay, ReadDir, Result, Seek};
use crate::sys::{self, Errno, open_flags};

/// Whether other servers have answered the kernel before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// This one is the first.
    Begins,
    /// Others have.
    GoesOn,
}

/// The overlay as the kernel asks it.
#[derive(Debug)]
pub(crate) struct Requests {
    overlay: Overlay,
    /// On the file system whose state a tree without an upper shows.
    statfs_of: OwnedFd,
    /// How long the kernel may believe what it is told.
    valid: Duration,
    /// Whether files have access control lists.
    acl: bool,
    /// Whether the kernel leaves it to us to take set-uid and set-gid away.
    drops_set_ids: bool,
    told: Told,
    /// The files that programs have open; none where the kernel opens them without asking.
    backings: Option<Backings>,
}

impl Requests {
    pub(crate) fn new(
        overlay: Overlay,
        device: &Arc<Device>,
        statfs_of: OwnedFd,
        (valid, acl): (Duration, bool),
        history: History,
    ) -> Self {
        let told = Told::new(Arc::clone(device), history == History::GoesOn);
        let drops_set_ids = false;
        Self { overlay, statfs_of, valid, acl, drops_set_ids, told, backings: None }
    }

    /// Takes set-uid and set-gid away where the kernel does not.
    pub(crate) const fn drop_set_ids(&mut self) {
        self.drops_set_ids = true;
    }

    /// Has the kernel ask when a file is opened, and read and write contents itself.
    pub(crate) fn pass_through(&mut self, device: &Arc<Device>) {
        let keep = if self.overlay.is_read_only() { Keep::Numbers } else { Keep::Nothing };
        self.backings = Some(Backings::new(Arc::<Device>::clone(device), keep));
    }

    /// Returns a file like those that have contents, to try with it what the kernel can do.
    pub(crate) fn sample(&self) -> Result<OwnedFd> {
        self.overlay.sample_file(self.statfs_of.as_fd())
    }

    /// Tells whether files are open without anybody being told. The kernel then makes a file as `mknod(2)`
    /// does, and there is nothing to close.
    fn opens_nothing(&self) -> bool {
        self.backings.is_none() && !self.overlay.verifies()
    }

    /// Returns the tree.
    pub(crate) const fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Tells whether files have access control lists.
    pub(crate) const fn has_acl(&self) -> bool {
        self.acl
    }

    /// Puts the tree in order when it was unmounted. Everything stays open.
    pub(crate) fn end(&self) {
        self.overlay.end();
    }

    /// Does what a request asks for. A panic in it costs the one request and leaves the mount alive.
    pub(crate) fn serve<'a>(&self, request: &Request<'_>, buffer: &'a mut [u8]) -> &'a [u8] {
        let mut answer = Answer::new(buffer);
        let work = AssertUnwindSafe(|| self.operate(request, request.args(), &mut answer));
        let result = match catch_unwind(work) {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(error))) => {
                log(request, &error);
                Err(error.errno())
            }
            // The kernel does not ask again for most of what is not known.
            Ok(None) => Err(Errno::ENOSYS),
            Err(_) => {
                tracing::error!("request {} was given up after a panic", request.opcode());
                Err(Errno::EIO)
            }
        };
        answer.finish(request.unique(), result)
    }

    /// Calls the method for a request; none if there is none.
    ///
    /// Not known on purpose are FLUSH, because everything that was written is in the file already,
    /// and ACCESS, because who may do anything without the kernel's check may do everything.
    pub(crate) fn operate(
        &self,
        request: &Request<'_>,
        args: Args<'_>,
        answer: &mut Answer<'_>,
    ) -> Option<Result<()>> {
        let is_read_only = self.overlay.is_read_only();
        Some(match request.opcode() {
            opcode::LOOKUP => self.lookup(request, args, answer),
            opcode::FORGET => self.forget(request, args),
            opcode::BATCH_FORGET => self.batch_forget(args),
            opcode::GETATTR => self.getattr(request, answer),
            opcode::SETATTR => self.setattr(request, args, answer),
            opcode::READLINK => self.readlink(request, answer),
            opcode::SYMLINK => self.symlink(request, args, answer),
            opcode::MKNOD => self.mknod(request, args, answer),
            opcode::MKDIR => self.mkdir(request, args, answer),
            opcode::UNLINK => self.unlink(request, args),
            opcode::RMDIR => self.rmdir(request, args),
            opcode::RENAME => self.rename(request, args),
            opcode::RENAME2 => self.rename2(request, args),
            opcode::LINK => self.link(request, args, answer),
            // Where these are not known, the kernel does not ask again.
            opcode::OPENDIR if is_read_only => return None,
            opcode::OPEN | opcode::CREATE if self.opens_nothing() => return None,
            opcode::OPEN => self.open(request, args, answer),
            opcode::READ => self.read(request, args, answer),
            opcode::WRITE => self.write(request, args, answer),
            opcode::STATFS => self.statfs(answer),
            opcode::RELEASE => self.release(request),
            opcode::RELEASEDIR => self.releasedir(args),
            opcode::FSYNC => self.fsync(request, args),
            opcode::FSYNCDIR => once(request, || self.overlay.sync_dir(request.ino())),
            opcode::SETXATTR => self.setxattr(request, args),
            opcode::GETXATTR => self.getxattr(request, args, answer),
            opcode::LISTXATTR => self.listxattr(request, args, answer),
            opcode::REMOVEXATTR => self.removexattr(request, args),
            opcode::OPENDIR => self.opendir(request, answer),
            opcode::READDIR => self.readdir(request, args, ReadDir::Names, answer),
            opcode::READDIRPLUS => self.readdir(request, args, ReadDir::Attributes, answer),
            opcode::CREATE => self.create(request, args, answer),
            opcode::TMPFILE => self.tmpfile(request, args, answer),
            opcode::FALLOCATE => self.fallocate(request, args),
            opcode::LSEEK => self.lseek(request, args, answer),
            opcode::COPY_FILE_RANGE => {
                let copied = |size| WriteOut { size, padding: 0 };
                self.copy_range(request, args).and_then(|size| answer.put(&copied(size)))
            }
            opcode::COPY_FILE_RANGE_64 => {
                let copied = |size| CopyFileRangeOut { bytes_copied: u64::from(size) };
                self.copy_range(request, args).and_then(|size| answer.put(&copied(size)))
            }
            _ => return None,
        })
    }

    fn lookup(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let name = args.name()?;
        let changes = self.told.changes();
        match self.overlay.lookup(request.ino(), name) {
            // The kernel remembers that there is nothing.
            Err(Error::NotFound) => to.put(&nothing(self.valid)),
            result => self.put_entry(&self.current(result?, changes, request), to),
        }
    }

    /// Answers with a file that the kernel knows from now on.
    fn put_entry(&self, attr: &Attr, to: &mut Answer<'_>) -> Result<()> {
        to.put(&entry_out(attr, self.valid, self.attr_valid(attr.ino)))
    }

    /// Answers with attributes.
    fn put_attr(&self, attr: &Attr, to: &mut Answer<'_>) -> Result<()> {
        to.put(&attr_out(attr, self.attr_valid(attr.ino)))
    }

    /// Returns how long the kernel may believe attributes of a file.
    fn attr_valid(&self, ino: Ino) -> Duration {
        match &self.backings {
            Some(backings) if backings.is_mapped(ino) => Duration::ZERO,
            _ => self.valid,
        }
    }

    /// Returns attributes that were read when there were `changes` as a request is to be told them:
    /// those of a directory as they are now.
    fn current(&self, attr: Attr, changes: u64, request: &Request<'_>) -> Attr {
        let may_change = attr.kind() == Kind::Directory && !self.overlay.is_read_only();
        if may_change && self.told.tell(attr.ino, request, changes) {
            return self.overlay.getattr(attr.ino).unwrap_or(attr);
        }
        attr
    }

    /// Does what changes names of a directory.
    fn change<T>(
        &self,
        dir: Ino,
        request: &Request<'_>,
        work: impl FnOnce(Ino) -> Result<T>,
    ) -> Result<T> {
        let done = work(dir);
        self.told.changed(dir, request);
        done
    }

    fn forget(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let forget: ForgetIn = args.take()?;
        self.forget_one(request.ino(), forget.nlookup);
        Ok(())
    }

    fn batch_forget(&self, mut args: Args<'_>) -> Result<()> {
        let batch: BatchForgetIn = args.take()?;
        for _ in 0..batch.count {
            let one: ForgetOne = args.take()?;
            self.forget_one(Ino(one.nodeid), one.nlookup);
        }
        Ok(())
    }

    fn forget_one(&self, ino: Ino, count: u64) {
        if self.overlay.forget(ino, count) {
            self.told.forget(ino);
            if let Some(backings) = &self.backings {
                backings.forget(ino);
            }
        }
    }

    fn getattr(&self, request: &Request<'_>, to: &mut Answer<'_>) -> Result<()> {
        let changes = self.told.changes();
        let attr = self.overlay.getattr(request.ino())?;
        self.put_attr(&self.current(attr, changes, request), to)
    }

    fn setattr(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        to: &mut Answer<'_>,
    ) -> Result<()> {
        let set: SetattrIn = args.take()?;
        if set.valid & fattr::SIZE != 0 && set.valid & fattr::KILL_SUIDGID != 0 {
            self.take_set_ids(request.ino(), request)?;
        }
        self.put_attr(&self.overlay.setattr(request.ino(), set_attr(&set))?, to)
    }

    fn readlink(&self, request: &Request<'_>, to: &mut Answer<'_>) -> Result<()> {
        to.bytes(self.overlay.read_link(request.ino())?.as_bytes())
    }

    fn symlink(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        to: &mut Answer<'_>,
    ) -> Result<()> {
        let name = args.name()?;
        let (new, caller) = (NewFile::Symlink(args.name()?), request.caller(0));
        let make = |dir| self.overlay.make(dir, name, new, 0o777, caller, request.attempt());
        self.put_entry(&self.change(request.ino(), request, make)?, to)
    }

    fn mknod(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let node: MknodIn = args.take()?;
        let (name, new) = (args.name()?, NewFile::Node(Kind::of(node.mode), u64::from(node.rdev)));
        let caller = request.caller(node.umask);
        let make = |dir| self.overlay.make(dir, name, new, node.mode, caller, request.attempt());
        self.put_entry(&self.change(request.ino(), request, make)?, to)
    }

    fn mkdir(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let dir: MkdirIn = args.take()?;
        let (name, caller) = (args.name()?, request.caller(dir.umask));
        let (new, attempt) = (NewFile::Directory, request.attempt());
        let make = |parent| self.overlay.make(parent, name, new, dir.mode, caller, attempt);
        self.put_entry(&self.change(request.ino(), request, make)?, to)
    }

    fn unlink(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let name = args.name()?;
        self.change(request.ino(), request, |dir| self.overlay.unlink(dir, name, request.attempt()))
    }

    fn rmdir(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let name = args.name()?;
        self.change(request.ino(), request, |dir| self.overlay.rmdir(dir, name, request.attempt()))
    }

    fn rename(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let rename: RenameIn = args.take()?;
        self.rename_by(request, args, Rename2In { newdir: rename.newdir, flags: 0, padding: 0 })
    }

    fn rename2(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let rename: Rename2In = args.take()?;
        self.rename_by(request, args, rename)
    }

    fn rename_by(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        rename: Rename2In,
    ) -> Result<()> {
        let how = rename_how(rename.flags, request.caller(0))?;
        let (from, to) = ((request.ino(), args.name()?), (Ino(rename.newdir), args.name()?));
        self.change(to.0, request, |_| {
            self.change(from.0, request, |_| self.overlay.rename(from, to, how, request.attempt()))
        })
    }

    fn link(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let link: LinkIn = args.take()?;
        let name = args.name()?;
        let make = |dir| self.overlay.link(Ino(link.oldnodeid), dir, name, request.attempt());
        self.put_entry(&self.change(request.ino(), request, make)?, to)
    }

    fn open(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let open: OpenIn = args.take()?;
        if self.overlay.verifies() {
            // What is checked when it is opened is checked each time.
            self.overlay.open(request.ino())?;
        }
        to.put(&self.opened(request.ino(), open.flags)?)
    }

    /// Returns the answer to who opens a file.
    fn opened(&self, ino: Ino, flags: u32) -> Result<OpenOut> {
        let Some(backings) = &self.backings else {
            return Ok(open_out(Fh(0), fopen::KEEP_CACHE));
        };
        let way = backings.open(ino, || self.overlay.backing(ino))?;
        let (open_flags, backing_id) = match way {
            Way::Cached => (fopen::KEEP_CACHE, 0),
            Way::Anew => (0, 0),
            Way::Through(number) => (fopen::PASSTHROUGH, number),
        };
        // What is written through a mapping later changes times, and the kernel is not told.
        let is_mapped = backing_id != 0 && open_flags::is_read_write(flags.cast_signed());
        if is_mapped && backings.may_be_mapped(ino) {
            self.told.forget_attributes(ino);
        }
        Ok(OpenOut { fh: 0, open_flags, backing_id })
    }

    fn read(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let read: ReadIn = args.take()?;
        to.fill(read.size, |room| self.overlay.read(request.ino(), room, read.offset))
    }

    fn write(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let write: WriteIn = args.take()?;
        if write.write_flags & WRITE_KILL_SUIDGID != 0 {
            self.take_set_ids(request.ino(), request)?;
        }
        self.overlay.write(request.ino(), args.bytes(write.size)?, write.offset)?;
        to.put(&WriteOut { size: write.size, padding: 0 })
    }

    /// Takes set-uid and set-gid away from a file that a request is about to change.
    fn take_set_ids(&self, ino: Ino, request: &Request<'_>) -> Result<()> {
        let dropped = self.overlay.drop_set_ids(ino, |group| request.is_in_group(group))?;
        // A server that has died may have done it, and not said so.
        if dropped || request.is_resent() {
            // The kernel is told nothing of the mode by the answer.
            self.told.forget_attributes(ino);
        }
        Ok(())
    }

    /// Does so where the kernel does not say whether who asks may leave them.
    fn take_set_ids_unless_root(&self, ino: Ino, request: &Request<'_>) -> Result<()> {
        match self.drops_set_ids && !request.is_root() {
            true => self.take_set_ids(ino, request),
            false => Ok(()),
        }
    }

    fn statfs(&self, to: &mut Answer<'_>) -> Result<()> {
        let state = self.overlay.statfs(self.statfs_of.as_fd())?;
        to.put(&StatfsOut {
            blocks: state.blocks,
            bfree: state.blocks_free,
            bavail: state.blocks_available,
            files: state.files,
            ffree: state.files_free,
            bsize: state.block_size,
            namelen: state.name_max,
            frsize: state.block_size,
            ..StatfsOut::default()
        })
    }

    fn release(&self, request: &Request<'_>) -> Result<()> {
        if let Some(backings) = &self.backings {
            backings.close(request.ino());
        }
        Ok(())
    }

    fn releasedir(&self, mut args: Args<'_>) -> Result<()> {
        let release: ReleaseIn = args.take()?;
        self.overlay.close_dir(Fh(release.fh));
        Ok(())
    }

    fn fsync(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let sync: FsyncIn = args.take()?;
        once(request, || self.overlay.sync(request.ino(), sync.fsync_flags & FSYNC_FDATASYNC != 0))
    }

    fn opendir(&self, request: &Request<'_>, to: &mut Answer<'_>) -> Result<()> {
        // The kernel would give what one handle has read to another, positions included.
        let flags = match self.overlay.is_in_upper(request.ino())? {
            true => 0,
            false => fopen::CACHE_DIR | fopen::KEEP_CACHE,
        };
        to.put(&open_out(self.overlay.open_dir_handle(request.ino())?, flags))
    }

    fn readdir(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        what: ReadDir,
        to: &mut Answer<'_>,
    ) -> Result<()> {
        let read: ReadIn = args.take()?;
        let (ino, fh) = (request.ino(), handle(read.fh));
        let changes = self.told.changes();
        self.overlay.read_dir(ino, fh, read.offset, what, &mut |entry| {
            let attributes = match entry.attr {
                Some(attr) => {
                    let attr = self.current(*attr, changes, request);
                    entry_out(&attr, self.valid, self.attr_valid(attr.ino))
                }
                // The kernel takes only the number and the type.
                None => nothing(Duration::ZERO),
            };
            let before = match what {
                ReadDir::Names => &[],
                ReadDir::Attributes => attributes.as_bytes(),
            };
            let numbers = (entry.ino.0, entry.next, u32::from(entry.kind.dirent_type()));
            match to.entry(read.size, before, numbers, entry.name) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })
    }

    fn create(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let new: CreateIn = args.take()?;
        let (name, caller) = (args.name()?, request.caller(new.umask));
        let create = |dir| self.overlay.create(dir, name, new.mode, caller, request.attempt());
        self.put_open(&self.change(request.ino(), request, create)?, new.flags, to)
    }

    fn tmpfile(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        to: &mut Answer<'_>,
    ) -> Result<()> {
        let new: CreateIn = args.take()?;
        let caller = request.caller(new.umask);
        let made = self.overlay.create_nameless(request.ino(), new.mode, caller)?;
        self.put_open(&made, new.flags, to)
    }

    /// Answers with a file that was made and is open.
    fn put_open(&self, attr: &Attr, flags: u32, to: &mut Answer<'_>) -> Result<()> {
        let open = self.opened(attr.ino, flags)?;
        self.put_entry(attr, to)?;
        to.put(&open)
    }

    fn fallocate(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let room: FallocateIn = args.take()?;
        self.take_set_ids_unless_root(request.ino(), request)?;
        self.overlay.allocate(request.ino(), room.mode.cast_signed(), room.offset, room.length)
    }

    fn lseek(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let seek: LseekIn = args.take()?;
        let whence = match open_flags::seeks_data(seek.whence.cast_signed()) {
            true => Seek::Data,
            false => Seek::Hole,
        };
        let offset = self.overlay.seek(request.ino(), seek.offset, whence)?;
        to.put(&LseekOut { offset })
    }

    fn copy_range(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<u32> {
        let copy: CopyFileRangeIn = args.take()?;
        let len = usize::try_from(copy.len).unwrap_or(usize::MAX).min(i32::MAX as usize);
        let (from, to) = ((request.ino(), copy.off_in), (Ino(copy.nodeid_out), copy.off_out));
        self.take_set_ids_unless_root(to.0, request)?;
        let copied = self.overlay.copy_range(from, to, len)?;
        Ok(u32::try_from(copied).unwrap_or(u32::MAX))
    }
}

/// Does something that tells an error only once. Where it is tried again, that of the first time counts.
fn once(request: &Request<'_>, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let earlier = request.attempt().noted(0).and_then(|errno| i32::try_from(errno).ok());
    if let Some(errno) = earlier {
        return Err(Error::Sys(sys::Error::new("fsync()", Errno::from_raw(errno))));
    }
    work().inspect_err(|error| {
        request.attempt().note(0, u64::from((error.errno() as i32).unsigned_abs()));
    })
}

/// Logs an error: a fault of the file system loudly, an answer to a question quietly.
fn log(request: &Request<'_>, error: &Error) {
    let (opcode, ino) = (request.opcode(), request.ino().0);
    if error.is_fault() {
        tracing::error!("request {opcode} about {ino}: {error}");
    } else {
        tracing::debug!("request {opcode} about {ino}: {error}");
    }
}
