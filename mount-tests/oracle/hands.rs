//! A program that works in a directory, whatever is mounted there.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, RenameFlags, fcntl, renameat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, futimens, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{AccessFlags, access, linkat};
use xattr::FileExt as _;

use crate::op::{LATEST, Op, text, xattr_name};
use crate::oracle::act::{Act, HANDLES, How, Special};
use crate::oracle::data::{self, Data};
use crate::oracle::seen::{Seen, names, seen_at, seen_through};
use crate::oracle::worlds::World;

/// What an act answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Did(String),
    Saw(Seen),
    Refused(Errno),
}

impl From<io::Error> for Answer {
    fn from(error: io::Error) -> Self {
        Self::Refused(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }
}

impl From<Errno> for Answer {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

/// A directory, and files in it that are open.
#[derive(Debug)]
pub(crate) struct Hands {
    root: PathBuf,
    handles: [Option<File>; HANDLES],
    /// A map shows what the file has now.
    maps_are_true: bool,
}

impl Hands {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), handles: [const { None }; HANDLES], maps_are_true: true }
    }

    /// Works in a mount of this kind.
    pub(crate) fn of(world: World, root: &Path) -> Self {
        Self { maps_are_true: world != World::Kernel, ..Self::new(root) }
    }

    /// Closes everything.
    pub(crate) fn let_go(&mut self) {
        self.handles = [const { None }; HANDLES];
    }

    /// Closes a handle.
    pub(crate) fn close(&mut self, handle: u8) {
        if let Ok(place) = self.place(handle) {
            self.handles[place] = None;
        }
    }

    fn path(&self, path: &[u8]) -> PathBuf {
        self.root.join(text(path))
    }

    /// Returns where the first file is that is open from this handle on.
    fn place(&self, handle: u8) -> Result<usize, Errno> {
        let mut places = (0..HANDLES).map(|next| (usize::from(handle) + next) % HANDLES);
        places.find(|place| self.handles[*place].is_some()).ok_or(Errno::EBADF)
    }

    fn handle(&self, handle: u8) -> Result<&File, Errno> {
        self.handles[self.place(handle)?].as_ref().ok_or(Errno::EBADF)
    }

    /// Does it, and tells what came of it.
    pub(crate) fn act(&mut self, act: &Act) -> Answer {
        let done = match act {
            Act::Op(op) => self.op(op),
            Act::Open(handle, path, how) => self.open(*handle, path, *how),
            Act::Data(handle, data) => self.data(*handle, data),
            _ => self.other(act),
        };
        done.unwrap_or_else(|refused| refused)
    }

    /// Opens a file or directory; what is written to a FIFO is not the file system's business.
    fn open(&mut self, handle: u8, path: &[u8], how: How) -> Result<Answer, Answer> {
        let place = usize::from(handle) % HANDLES;
        self.handles[place] = None;
        let flags = how.flags();
        let file = File::options()
            .read(how.read)
            .write(how.write)
            .custom_flags(flags & !libc::O_ACCMODE)
            .mode(0o640)
            .open(self.path(path))?;
        let kind = file.metadata()?.file_type();
        if kind.is_file() || kind.is_dir() {
            self.handles[place] = Some(file);
        }
        Ok(Answer::Did(String::new()))
    }

    fn data(&self, handle: u8, data: &Data) -> Result<Answer, Answer> {
        let file = self.handle(handle)?;
        if !file.metadata()?.is_file() {
            return Ok(Answer::Did("a directory".to_owned()));
        }
        if let Data::MapRead(range) = data
            && !self.maps_are_true
            && is_read_only(file)?
        {
            return Ok(Answer::Did(data::read_unmapped(file, *range)?));
        }
        let to = match data {
            Data::Copy(_, to, _) => self.handle(*to).ok(),
            _ => None,
        };
        Ok(Answer::Did(data::on_file(file, to, data)?))
    }

    fn op(&mut self, op: &Op) -> Result<Answer, Answer> {
        match op {
            Op::Create(path, mode) => drop(
                File::options()
                    .write(true)
                    .create_new(true)
                    .mode(u32::from(*mode))
                    .open(self.path(path))?,
            ),
            Op::Mkdir(path, mode) => {
                nix::unistd::mkdir(&self.path(path), Mode::from_bits_truncate(u32::from(*mode)))?;
            }
            Op::Symlink(path, target) => {
                symlink("x".repeat(1 + usize::from(*target)), self.path(path))?;
            }
            Op::Mkfifo(path) => {
                mknod(&self.path(path), SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0)?;
            }
            Op::Unlink(path) => fs::remove_file(self.path(path))?,
            Op::Rmdir(path) => fs::remove_dir(self.path(path))?,
            Op::Rename(from, to) => self.rename(from, to, RenameFlags::empty())?,
            Op::RenameNoReplace(from, to) => {
                self.rename(from, to, RenameFlags::RENAME_NOREPLACE)?;
            }
            Op::Exchange(from, to) => self.rename(from, to, RenameFlags::RENAME_EXCHANGE)?,
            Op::Link(from, to) => fs::hard_link(self.path(from), self.path(to))?,
            Op::List(path) => return Ok(Answer::Did(names(&self.path(path))?.join(" "))),
            Op::Stat(path) => return Ok(Answer::Saw(seen_at(&self.path(path))?)),
            Op::Remount => self.let_go(),
            Op::Chmod(path, mode) => {
                let mode = fs::Permissions::from_mode(u32::from(*mode));
                fs::set_permissions(self.path(path), mode)?;
            }
            Op::Chown(path, uid, gid) => {
                let (uid, gid) = (u32::from(*uid), u32::from(*gid));
                std::os::unix::fs::lchown(self.path(path), Some(uid), Some(gid))?;
            }
            Op::Utimes(path, time) => {
                let time = TimeSpec::new(i64::from(time % LATEST), 123_456_789);
                let flag = UtimensatFlags::NoFollowSymlink;
                utimensat(AT_FDCWD, &self.path(path), &TimeSpec::UTIME_OMIT, &time, flag)?;
            }
            Op::Truncate(path, size) => {
                nix::unistd::truncate(&self.path(path), i64::from(*size))?;
            }
            Op::SetXattr(path, name, value) => {
                let bytes = vec![*value; usize::from(*value) % 9];
                xattr::set(self.path(path), xattr_name(*name), &bytes)?;
            }
            Op::RemoveXattr(path, name) => {
                xattr::remove(self.path(path), xattr_name(*name))?;
            }
            Op::Open(path, truncate) => return self.open_free(path, *truncate),
            Op::Close(handle) => {
                let place = self.place(*handle)?;
                self.handles[place] = None;
            }
            Op::Read(handle, at, len) => {
                return self.data(*handle, &Data::Read((u32::from(*at), u32::from(*len))));
            }
            Op::Write(handle, at, len, seed) => {
                let range = (u32::from(*at), u32::from(*len));
                return self.data(*handle, &Data::Write(range, *seed));
            }
            Op::FstatHandle(handle) => {
                return Ok(Answer::Saw(seen_through(self.handle(*handle)?)?));
            }
            Op::TruncateHandle(handle, size) => {
                return self.data(*handle, &Data::Truncate(u32::from(*size)));
            }
        }
        Ok(Answer::Did(String::new()))
    }

    fn rename(&self, from: &[u8], to: &[u8], flags: RenameFlags) -> nix::Result<()> {
        renameat2(AT_FDCWD, &self.path(from), AT_FDCWD, &self.path(to), flags)
    }

    fn open_free(&mut self, path: &[u8], truncate: bool) -> Result<Answer, Answer> {
        let Some(free) = self.handles.iter().position(Option::is_none) else {
            return Err(Errno::EMFILE.into());
        };
        let how = How { read: true, write: true, truncate, ..How::default() };
        self.open(u8::try_from(free).unwrap(), path, how)
    }

    fn other(&self, act: &Act) -> Result<Answer, Answer> {
        match act {
            Act::Mknod(path, special) => {
                let (kind, device) = match special {
                    Special::Character => (SFlag::S_IFCHR, makedev(1, 3)),
                    Special::Block => (SFlag::S_IFBLK, makedev(300, 70_000)),
                    Special::Socket => (SFlag::S_IFSOCK, 0),
                    Special::Whiteout => (SFlag::S_IFCHR, 0),
                };
                mknod(&self.path(path), kind, Mode::from_bits_truncate(0o622), device)?;
            }
            Act::LinkTo(path, to) => {
                let target = format!("{}{}", "../".repeat(path.len() - 1), text(to));
                symlink(target, self.path(path))?;
            }
            Act::ChmodHandle(handle, mode) => self
                .handle(*handle)?
                .set_permissions(fs::Permissions::from_mode(u32::from(*mode)))?,
            Act::ChownHandle(handle, uid, gid) => {
                fchown(self.handle(*handle)?, Some(u32::from(*uid)), Some(u32::from(*gid)))?;
            }
            Act::UtimesHandle(handle, secs, nanos) => {
                let time = TimeSpec::new(i64::from(secs % LATEST), i64::from(*nanos));
                futimens(self.handle(*handle)?, &TimeSpec::UTIME_OMIT, &time)?;
            }
            Act::SetXattrHandle(handle, name, value) => {
                self.handle(*handle)?.set_xattr(xattr_name(*name), &[*value])?;
            }
            Act::LinkHandle(handle, path) => {
                let file = self.handle(*handle)?;
                linkat(file, "", AT_FDCWD, &self.path(path), AtFlags::AT_EMPTY_PATH)?;
            }
            Act::RenameWhiteout(from, to) => self.rename(from, to, RenameFlags::RENAME_WHITEOUT)?,
            Act::SetXattrIf(path, name, must_be_there) => {
                set_xattr_if(&self.path(path), xattr_name(*name), *must_be_there)?;
            }
            Act::GetXattr(path, name) => {
                let value = xattr::get(self.path(path), xattr_name(*name))?;
                return Ok(Answer::Did(format!("{value:?}")));
            }
            Act::Access(path, mode) => {
                let mode = AccessFlags::from_bits_truncate(i32::from(*mode));
                access(&self.path(path), mode)?;
            }
            other => panic!("{other:?} is done elsewhere"),
        }
        Ok(Answer::Did(String::new()))
    }
}

fn is_read_only(file: &File) -> nix::Result<bool> {
    Ok(fcntl(file, FcntlArg::F_GETFL)? & libc::O_ACCMODE == libc::O_RDONLY)
}

#[allow(unsafe_code, reason = "the crate that sets attributes has no flags")]
fn set_xattr_if(path: &Path, name: &str, must_be_there: bool) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    let flag = if must_be_there { libc::XATTR_REPLACE } else { libc::XATTR_CREATE };
    // SAFETY: both names end with a zero, and the value has two bytes.
    let done =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), b"if".as_ptr().cast(), 2, flag) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
