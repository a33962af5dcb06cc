//! One method for each request of the kernel: decode, call, reply.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::fuse::convert::{FOREVER, GENERATION, file_attr, file_type, nothing, set_time};
use crate::fuse::reply::{
    answer, answer_attr, answer_empty, answer_entry, answer_sized, answer_written, guarded,
};
use crate::fuse::requests::{Checked, Requests, caller, handle, ino, rename_how};
use crate::overlay::{Attr, Error, Fh, Kind, NewFile, ReadDir, Seek, SetAttr, SetXattrFlag};
use crate::sys;

/// Most bytes of one write; a request is read into a buffer of this size.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel has in the queue for read-ahead and the like.
const MAX_BACKGROUND: u16 = 64;

thread_local! {
    /// What is read from files on its way to the kernel.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Filesystem for Requests {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Not FUSE_ATOMIC_O_TRUNC: with it the kernel leaves set-uid on what it truncates in opening.
        let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_DONT_MASK;
        if self.overlay.is_read_only() {
            wanted |= InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        }
        if self.checked == Checked::ByKernel {
            // This makes the kernel check permissions, whatever the mount options say.
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        for flag in wanted.iter() {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!("the kernel does not know {flag:?}");
            }
        }
        // Where the kernel wants less, what it wants is taken.
        if let Err(most) = config.set_max_write(MAX_WRITE) {
            tracing::debug!("the kernel writes {most} bytes at most");
        }
        if let Err(most) = config.set_max_background(MAX_BACKGROUND) {
            tracing::debug!("the kernel queues {most} requests at most");
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded("lookup", || {
            let changes = self.told.changes();
            match self.overlay.lookup(ino(parent), name) {
                // The kernel remembers that there is nothing.
                Err(Error::NotFound) => reply.entry(&FOREVER, &nothing(), GENERATION),
                result => {
                    let result = result.map(|attr| self.current(attr, changes, request));
                    answer_entry("lookup", result, reply);
                }
            }
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        guarded("forget", || {
            if self.overlay.forget(ino(number), count) {
                self.told.forget(ino(number));
            }
        });
    }

    fn getattr(&self, request: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        guarded("getattr", || {
            let changes = self.told.changes();
            let result = self.overlay.getattr(ino(number));
            let result = result.map(|attr| self.current(attr, changes, request));
            answer_attr("getattr", result, reply);
        });
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        guarded("setattr", || {
            let (atime, mtime) = (atime.map(set_time), mtime.map(set_time));
            let set = SetAttr { mode, uid, gid, size, atime, mtime };
            let result = self.overlay.setattr(ino(number), fh.and_then(handle), set);
            answer_attr("setattr", result, reply);
        });
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        guarded("readlink", || {
            let result = self.overlay.read_link(ino(number));
            let ok = |reply: ReplyData, target: std::ffi::OsString| reply.data(target.as_bytes());
            answer("readlink", result, reply, ok, ReplyData::error);
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        guarded("mknod", || {
            let new = NewFile::Node(Kind::of(mode), u64::from(rdev));
            let caller = caller(request, umask);
            let make = |dir| self.overlay.make(dir, name, new, mode, caller);
            answer_entry("mknod", self.change(parent, request, make), reply);
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        guarded("mkdir", || {
            let (new, caller) = (NewFile::Directory, caller(request, umask));
            let make = |dir| self.overlay.make(dir, name, new, mode, caller);
            answer_entry("mkdir", self.change(parent, request, make), reply);
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded("unlink", || {
            let unlink = |dir| self.overlay.unlink(dir, name);
            answer_empty("unlink", self.change(parent, request, unlink), reply);
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded("rmdir", || {
            let rmdir = |dir| self.overlay.rmdir(dir, name);
            answer_empty("rmdir", self.change(parent, request, rmdir), reply);
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        guarded("symlink", || {
            let (new, caller) = (NewFile::Symlink(target.as_os_str()), caller(request, 0));
            let make = |dir| self.overlay.make(dir, name, new, 0o777, caller);
            answer_entry("symlink", self.change(parent, request, make), reply);
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        guarded("rename", || {
            let rename = |how| {
                self.change(new_parent, request, |new_dir| {
                    let from = (ino(parent), name);
                    self.change(parent, request, |_| {
                        self.overlay.rename(from, (new_dir, new_name), how)
                    })
                })
            };
            answer_empty("rename", rename_how(flags).and_then(rename), reply);
        });
    }

    fn link(
        &self,
        request: &Request,
        number: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        guarded("link", || {
            let link = |dir| self.overlay.link(ino(number), dir, new_name);
            answer_entry("link", self.change(new_parent, request, link), reply);
        });
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.overlay.is_read_only() {
            // The kernel does not ask again, and reads by number.
            return reply.error(Errno::ENOSYS);
        }
        guarded("open", || {
            let result = self.overlay.open(ino(number));
            let ok = |reply: ReplyOpen, fh: Fh| {
                reply.opened(FileHandle(fh.0), FopenFlags::FOPEN_KEEP_CACHE);
            };
            answer("open", result, reply, ok, ReplyOpen::error);
        });
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        guarded("read", || {
            BUFFER.with_borrow_mut(|buffer| {
                let size = size as usize;
                if buffer.len() < size {
                    buffer.resize(size, 0);
                }
                let room = buffer.get_mut(..size).unwrap_or_default();
                let result = self.overlay.read(ino(number), handle(fh), room, offset);
                let ok = |reply: ReplyData, len| reply.data(room.get(..len).unwrap_or_default());
                answer("read", result, reply, ok, ReplyData::error);
            });
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        guarded("write", || {
            let result = self.overlay.write(Fh(fh.0), data, offset).map(|()| data.len());
            answer_written("write", result, reply);
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Everything that was written is in the file already; the kernel does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        guarded("release", || {
            self.overlay.release(Fh(fh.0));
            reply.ok();
        });
    }

    fn fsync(
        &self,
        _: &Request,
        number: INodeNo,
        fh: FileHandle,
        content_only: bool,
        reply: ReplyEmpty,
    ) {
        guarded("fsync", || {
            let result = match handle(fh) {
                Some(fh) => self.overlay.sync(fh, content_only),
                None => self.overlay.getattr(ino(number)).map(drop),
            };
            answer_empty("fsync", result, reply);
        });
    }

    fn opendir(&self, _: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.overlay.is_read_only() {
            return reply.error(Errno::ENOSYS);
        }
        guarded("opendir", || {
            let number = ino(number);
            let ok = |reply: ReplyOpen, (fh, in_upper): (Fh, bool)| {
                // The kernel would give what one handle has read to another, positions included.
                let flags = match in_upper {
                    true => FopenFlags::empty(),
                    false => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
                };
                reply.opened(FileHandle(fh.0), flags);
            };
            let result = self
                .overlay
                .is_in_upper(number)
                .and_then(|in_upper| Ok((self.overlay.open_dir_handle(number)?, in_upper)));
            answer("opendir", result, reply, ok, ReplyOpen::error);
        });
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        guarded("readdir", || {
            let fh = handle(fh);
            let result =
                self.overlay.read_dir(ino(number), fh, offset, ReadDir::Names, &mut |entry| {
                    let (number, kind) = (INodeNo(entry.ino.0), file_type(entry.kind));
                    match reply.add(number, entry.next, kind, entry.name) {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    }
                });
            answer("readdir", result, reply, |reply, ()| reply.ok(), ReplyDirectory::error);
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        guarded("readdirplus", || {
            let (fh, what) = (handle(fh), ReadDir::Attributes);
            let changes = self.told.changes();
            let result = self.overlay.read_dir(ino(number), fh, offset, what, &mut |entry| {
                let number = INodeNo(entry.ino.0);
                // The kernel takes only the number and the type of `.` and `..`.
                let attr = match entry.attr {
                    Some(attr) => file_attr(&self.current(*attr, changes, request)),
                    None => {
                        fuser::FileAttr { ino: number, kind: file_type(entry.kind), ..nothing() }
                    }
                };
                match reply.add(number, entry.next, entry.name, &FOREVER, &attr, GENERATION) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            answer("readdirplus", result, reply, |reply, ()| reply.ok(), ReplyDirectoryPlus::error);
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        guarded("releasedir", || {
            self.overlay.release(Fh(fh.0));
            reply.ok();
        });
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        guarded("fsyncdir", || answer_empty("fsyncdir", self.overlay.sync_dir(ino(number)), reply));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        guarded("statfs", || {
            let result = self.overlay.statfs(self.statfs_of.as_fd());
            let ok = |reply: ReplyStatfs, fs: sys::StatFs| {
                reply.statfs(
                    fs.blocks,
                    fs.blocks_free,
                    fs.blocks_available,
                    fs.files,
                    fs.files_free,
                    fs.block_size,
                    fs.name_max,
                    fs.block_size,
                );
            };
            answer("statfs", result, reply, ok, ReplyStatfs::error);
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        guarded("setxattr", || {
            let flag = match sys::SetXattr::from_flags(flags) {
                sys::SetXattr::Any => SetXattrFlag::Any,
                sys::SetXattr::Create => SetXattrFlag::Create,
                sys::SetXattr::Replace => SetXattrFlag::Replace,
            };
            let result = self.overlay.set_xattr(ino(number), name, value, flag);
            answer_empty("setxattr", result, reply);
        });
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded("getxattr", || {
            let result = self.overlay.get_xattr(ino(number), name);
            answer_sized("getxattr", result, size, reply);
        });
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        guarded("listxattr", || {
            // As everywhere, only root sees what only root can set.
            let shown =
                |name: &OsStr| request.uid() == 0 || !name.as_bytes().starts_with(b"trusted.");
            let result = self.overlay.list_xattr(ino(number)).map(|names| {
                let mut list = Vec::new();
                for name in names.iter().filter(|name| shown(name)) {
                    list.extend_from_slice(name.as_bytes());
                    list.push(0);
                }
                list
            });
            answer_sized("listxattr", result, size, reply);
        });
    }

    fn removexattr(&self, _: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded("removexattr", || {
            answer_empty("removexattr", self.overlay.remove_xattr(ino(number), name), reply);
        });
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // Where the kernel does not check permissions itself, whoever mounted the tree may do
        // everything with it; it does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        guarded("create", || {
            let caller = caller(request, umask);
            let create = |dir| self.overlay.create(dir, name, mode, caller);
            let result = self.change(parent, request, create);
            let ok = |reply: ReplyCreate, (attr, fh): (Attr, Fh)| {
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                let attr = file_attr(&attr);
                reply.created(&FOREVER, &attr, GENERATION, FileHandle(fh.0), flags);
            };
            answer("create", result, reply, ok, ReplyCreate::error);
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        guarded("fallocate", || {
            let result = self.overlay.allocate(Fh(fh.0), mode, offset, length);
            answer_empty("fallocate", result, reply);
        });
    }

    fn lseek(
        &self,
        _: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        guarded("lseek", || {
            let seek = match sys::open_flags::seeks_data(whence) {
                true => Seek::Data,
                false => Seek::Hole,
            };
            let offset = u64::try_from(offset).map_err(|_| Error::Invalid("offset"));
            let result =
                offset.and_then(|offset| self.overlay.seek(ino(number), handle(fh), offset, seek));
            let ok = |reply: ReplyLseek, at| reply.offset(i64::try_from(at).unwrap_or(i64::MAX));
            answer("lseek", result, reply, ok, ReplyLseek::error);
        });
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        guarded("copy_file_range", || {
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(i32::MAX as usize);
            let (from, to) = ((Fh(from.0), from_offset), (Fh(to.0), to_offset));
            answer_written("copy_file_range", self.overlay.copy_range(from, to, len), reply);
        });
    }
}
