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
    ForgetIn, ForgetOne, FsyncIn, GetxattrIn, GetxattrOut, LinkIn, LseekIn, LseekOut, MkdirIn,
    MknodIn, ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn, SetxattrIn, StatfsOut, WriteIn,
    WriteOut, fopen, opcode,
};
use crate::fuse::answer::Answer;
use crate::fuse::convert::{attr_out, entry_out, nothing, open_out, rename_how, set_attr};
use crate::fuse::device::Device;
use crate::fuse::request::{Args, Request, handle};
use crate::fuse::told::Told;
use crate::overlay::{Attr, Error, Fh, Ino, Kind, NewFile, Overlay, ReadDir, Result, Seek};
use crate::sys::{Errno, SetXattr, open_flags};

/// The overlay as the kernel asks it.
pub(crate) struct Requests {
    overlay: Overlay,
    /// On the file system whose state a tree without an upper shows.
    statfs_of: OwnedFd,
    /// How long the kernel may believe what it is told.
    valid: Duration,
    /// Whether files have access control lists.
    acl: bool,
    /// Whether opening a file of a tree that cannot be changed means something.
    opens: bool,
    told: Told,
}

impl Requests {
    pub(crate) fn new(
        overlay: Overlay,
        device: &Arc<Device>,
        statfs_of: OwnedFd,
        valid: Duration,
        acl: bool,
    ) -> Self {
        let told = Told::new(Arc::clone(device));
        Self { overlay, statfs_of, valid, acl, opens: false, told }
    }

    /// Has every opening of a file come here, also in a tree that cannot be changed.
    pub(crate) const fn with_opens(mut self, opens: bool) -> Self {
        self.opens = opens;
        self
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
            // The kernel does not ask again, and reads by number.
            opcode::OPENDIR if is_read_only => return None,
            opcode::OPEN if is_read_only && !self.opens => return None,
            opcode::OPEN => self.open(request, answer),
            opcode::READ => self.read(request, args, answer),
            opcode::WRITE => self.write(args, answer),
            opcode::STATFS => self.statfs(answer),
            opcode::RELEASE | opcode::RELEASEDIR => self.release(args),
            opcode::FSYNC => self.fsync(request, args),
            opcode::FSYNCDIR => self.overlay.sync_dir(request.ino()),
            opcode::SETXATTR => self.setxattr(request, args),
            opcode::GETXATTR => self.getxattr(request, args, answer),
            opcode::LISTXATTR => self.listxattr(request, args, answer),
            opcode::REMOVEXATTR => self.removexattr(request, args),
            opcode::OPENDIR => self.opendir(request, answer),
            opcode::READDIR => self.readdir(request, args, ReadDir::Names, answer),
            opcode::READDIRPLUS => self.readdir(request, args, ReadDir::Attributes, answer),
            opcode::CREATE => self.create(request, args, answer),
            opcode::TMPFILE => self.tmpfile(request, args, answer),
            opcode::FALLOCATE => self.fallocate(args),
            opcode::LSEEK => self.lseek(request, args, answer),
            opcode::COPY_FILE_RANGE => {
                let copied = |size| WriteOut { size, padding: 0 };
                self.copy_range(args).and_then(|size| answer.put(&copied(size)))
            }
            opcode::COPY_FILE_RANGE_64 => {
                let copied = |size| CopyFileRangeOut { bytes_copied: u64::from(size) };
                self.copy_range(args).and_then(|size| answer.put(&copied(size)))
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
            result => to.put(&entry_out(&self.current(result?, changes, request), self.valid)),
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
        }
    }

    fn getattr(&self, request: &Request<'_>, to: &mut Answer<'_>) -> Result<()> {
        let changes = self.told.changes();
        let attr = self.overlay.getattr(request.ino())?;
        to.put(&attr_out(&self.current(attr, changes, request), self.valid))
    }

    fn setattr(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        to: &mut Answer<'_>,
    ) -> Result<()> {
        let set: SetattrIn = args.take()?;
        let (set, fh) = set_attr(&set);
        to.put(&attr_out(&self.overlay.setattr(request.ino(), fh, set)?, self.valid))
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
        let make = |dir| self.overlay.make(dir, name, new, 0o777, caller);
        to.put(&entry_out(&self.change(request.ino(), request, make)?, self.valid))
    }

    fn mknod(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let node: MknodIn = args.take()?;
        let (name, new) = (args.name()?, NewFile::Node(Kind::of(node.mode), u64::from(node.rdev)));
        let caller = request.caller(node.umask);
        let make = |dir| self.overlay.make(dir, name, new, node.mode, caller);
        to.put(&entry_out(&self.change(request.ino(), request, make)?, self.valid))
    }

    fn mkdir(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let dir: MkdirIn = args.take()?;
        let (name, caller) = (args.name()?, request.caller(dir.umask));
        let make = |parent| self.overlay.make(parent, name, NewFile::Directory, dir.mode, caller);
        to.put(&entry_out(&self.change(request.ino(), request, make)?, self.valid))
    }

    fn unlink(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let name = args.name()?;
        self.change(request.ino(), request, |dir| self.overlay.unlink(dir, name))
    }

    fn rmdir(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let name = args.name()?;
        self.change(request.ino(), request, |dir| self.overlay.rmdir(dir, name))
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
            self.change(from.0, request, |_| self.overlay.rename(from, to, how))
        })
    }

    fn link(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let link: LinkIn = args.take()?;
        let name = args.name()?;
        let make = |dir| self.overlay.link(Ino(link.oldnodeid), dir, name);
        to.put(&entry_out(&self.change(request.ino(), request, make)?, self.valid))
    }

    fn open(&self, request: &Request<'_>, to: &mut Answer<'_>) -> Result<()> {
        to.put(&open_out(self.overlay.open(request.ino())?, fopen::KEEP_CACHE))
    }

    fn read(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let read: ReadIn = args.take()?;
        to.fill(read.size, |room| {
            self.overlay.read(request.ino(), handle(read.fh), room, read.offset)
        })
    }

    fn write(&self, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let write: WriteIn = args.take()?;
        self.overlay.write(Fh(write.fh), args.bytes(write.size)?, write.offset)?;
        to.put(&WriteOut { size: write.size, padding: 0 })
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

    fn release(&self, mut args: Args<'_>) -> Result<()> {
        let release: ReleaseIn = args.take()?;
        self.overlay.release(Fh(release.fh));
        Ok(())
    }

    fn fsync(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let sync: FsyncIn = args.take()?;
        match handle(sync.fh) {
            Some(fh) => self.overlay.sync(fh, sync.fsync_flags & FSYNC_FDATASYNC != 0),
            None => self.overlay.getattr(request.ino()).map(drop),
        }
    }

    fn setxattr(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let set: SetxattrIn = args.take()?;
        let name = args.name()?;
        self.check_acl(name.as_bytes())?;
        let flag = SetXattr::from_flags(set.flags.cast_signed());
        self.overlay.set_xattr(request.ino(), name, args.bytes(set.size)?, flag)
    }

    /// Checks that an attribute may be used, if it is an access control list.
    fn check_acl(&self, name: &[u8]) -> Result<()> {
        match is_acl(name) && !self.acl {
            true => Err(Error::Unsupported("the mount has no access control lists")),
            false => Ok(()),
        }
    }

    fn getxattr(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        to: &mut Answer<'_>,
    ) -> Result<()> {
        let get: GetxattrIn = args.take()?;
        let name = args.name()?;
        self.check_acl(name.as_bytes())?;
        put_sized(&self.overlay.get_xattr(request.ino(), name)?, get.size, to)
    }

    fn listxattr(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        to: &mut Answer<'_>,
    ) -> Result<()> {
        let list: GetxattrIn = args.take()?;
        // As everywhere, only root sees what only root can set.
        let is_shown = |name: &[u8]| {
            (request.is_root() || !name.starts_with(b"trusted.")) && (self.acl || !is_acl(name))
        };
        let mut names = Vec::new();
        for name in self.overlay.list_xattr(request.ino())? {
            if is_shown(name.as_bytes()) {
                names.extend_from_slice(name.as_bytes());
                names.push(0);
            }
        }
        put_sized(&names, list.size, to)
    }

    fn removexattr(&self, request: &Request<'_>, mut args: Args<'_>) -> Result<()> {
        let name = args.name()?;
        self.check_acl(name.as_bytes())?;
        self.overlay.remove_xattr(request.ino(), name)
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
                Some(attr) => entry_out(&self.current(*attr, changes, request), self.valid),
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
        let create = |dir| self.overlay.create(dir, name, new.mode, caller);
        self.put_open(self.change(request.ino(), request, create)?, to)
    }

    fn tmpfile(
        &self,
        request: &Request<'_>,
        mut args: Args<'_>,
        to: &mut Answer<'_>,
    ) -> Result<()> {
        let new: CreateIn = args.take()?;
        let caller = request.caller(new.umask);
        self.put_open(self.overlay.create_nameless(request.ino(), new.mode, caller)?, to)
    }

    fn put_open(&self, (attr, fh): (Attr, Fh), to: &mut Answer<'_>) -> Result<()> {
        to.put(&entry_out(&attr, self.valid))?;
        to.put(&open_out(fh, fopen::KEEP_CACHE))
    }

    fn fallocate(&self, mut args: Args<'_>) -> Result<()> {
        let room: FallocateIn = args.take()?;
        self.overlay.allocate(Fh(room.fh), room.mode.cast_signed(), room.offset, room.length)
    }

    fn lseek(&self, request: &Request<'_>, mut args: Args<'_>, to: &mut Answer<'_>) -> Result<()> {
        let seek: LseekIn = args.take()?;
        let whence = match open_flags::seeks_data(seek.whence.cast_signed()) {
            true => Seek::Data,
            false => Seek::Hole,
        };
        let offset = self.overlay.seek(request.ino(), handle(seek.fh), seek.offset, whence)?;
        to.put(&LseekOut { offset })
    }

    fn copy_range(&self, mut args: Args<'_>) -> Result<u32> {
        let copy: CopyFileRangeIn = args.take()?;
        let len = usize::try_from(copy.len).unwrap_or(usize::MAX).min(i32::MAX as usize);
        let (from, to) = ((Fh(copy.fh_in), copy.off_in), (Fh(copy.fh_out), copy.off_out));
        let copied = self.overlay.copy_range(from, to, len)?;
        Ok(u32::try_from(copied).unwrap_or(u32::MAX))
    }
}

/// Tells whether an attribute is an access control list.
fn is_acl(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_")
}

/// Answers with bytes, or with how many there are when the kernel asks for that.
fn put_sized(bytes: &[u8], size: u32, to: &mut Answer<'_>) -> Result<()> {
    match size {
        0 => {
            let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            to.put(&GetxattrOut { size, padding: 0 })
        }
        size if bytes.len() <= size as usize => to.bytes(bytes),
        _ => Err(Error::TooSmall),
    }
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
