//! The plain tree in memory: what a file system does, in as few words as possible.

use std::collections::BTreeMap;

use crate::op::{
    Answer, LATEST, LowerFile, LowerKind, Op, Tree, content, describe, name_of, xattr_name,
};

type Id = usize;

#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Option<u32>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Dir(BTreeMap<u8, Id>),
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
}

pub(crate) struct Reference {
    files: Vec<File>,
    handles: [Option<Id>; 4],
    /// The layers without what would have had no effect: what a tar of each has to say.
    pub(crate) layers: Vec<Vec<LowerFile>>,
    /// Whiteouts that hide nothing stay in them.
    has_idle_whiteouts: bool,
}

const ROOT: Id = 0;

fn seed(layer: usize, at: usize) -> u64 {
    (layer * 100 + at) as u64
}

fn kind_at(kind: &LowerKind, layer: usize, at: usize) -> LowerKind {
    match kind {
        LowerKind::File(len) => LowerKind::Bytes(content(seed(layer, at), usize::from(*len))),
        other => other.clone(),
    }
}

fn file(kind: Kind, mode: u32) -> File {
    File { kind, mode, uid: 0, gid: 0, mtime: None, xattrs: BTreeMap::new() }
}

impl Reference {
    pub(crate) fn new(lower: &[Vec<LowerFile>]) -> Self {
        Self::with(lower, true)
    }

    /// Makes the tree of layers without whiteouts that hide nothing: the kernel lists those.
    #[allow(dead_code, reason = "the model has no kernel beside it")]
    pub(crate) fn without_idle_whiteouts(lower: &[Vec<LowerFile>]) -> Self {
        Self::with(lower, false)
    }

    fn with(lower: &[Vec<LowerFile>], has_idle_whiteouts: bool) -> Self {
        let mut root = file(Kind::Dir(BTreeMap::new()), 0o755);
        root.mtime = Some(0);
        let mut this =
            Self { files: vec![root], handles: [None; 4], layers: Vec::new(), has_idle_whiteouts };
        for (number, layer) in lower.iter().enumerate() {
            let applied = this.add_layer(number, layer);
            this.layers.push(applied);
        }
        for file in &mut this.files {
            file.mtime = Some(0);
        }
        this
    }

    /// Extracts a layer over the tree; returns what had an effect, markers first.
    fn add_layer(&mut self, number: usize, layer: &[LowerFile]) -> Vec<LowerFile> {
        let mut applied = Vec::new();
        // From the top down: a marker below what another one hides would bring its directory back.
        let is_marker =
            |file: &&LowerFile| matches!(file.kind, LowerKind::Whiteout | LowerKind::Opaque);
        let mut markers: Vec<_> = layer.iter().filter(is_marker).collect();
        markers.sort_by_key(|file| (file.path.len(), matches!(file.kind, LowerKind::Opaque)));
        for file in markers {
            let (Ok(dir), Some(name)) = (self.dir_of(&file.path), file.path.last()) else {
                continue;
            };
            match file.kind {
                LowerKind::Whiteout => {
                    let hidden = self.entries(dir).remove(name);
                    if hidden.is_none() && !self.has_idle_whiteouts {
                        continue;
                    }
                }
                LowerKind::Opaque => match self.get(dir, *name) {
                    Ok(id) if self.is_dir(id) => self.entries(id).clear(),
                    _ => continue,
                },
                _ => continue,
            }
            applied.push(file.clone());
        }
        let mut seen: BTreeMap<Vec<u8>, Id> = BTreeMap::new();
        for (at, lower) in layer.iter().enumerate() {
            let Some((name, _)) = lower.path.split_last() else { continue };
            let name = *name;
            if matches!(lower.kind, LowerKind::Whiteout | LowerKind::Opaque) {
                continue;
            }
            if let LowerKind::Hard(target) = &lower.kind
                && seen.get(target).is_none_or(|id| self.find(target) != Ok(*id))
            {
                continue;
            }
            let Some(dir) = self.make_dirs(&lower.path[..lower.path.len() - 1]) else { continue };
            let existing = self.entries(dir).get(&name).copied();
            let new = match &lower.kind {
                LowerKind::Dir => match existing {
                    Some(id) if matches!(self.files[id].kind, Kind::Dir(_)) => {
                        self.files[id].mode = 0o755;
                        applied.push(lower.clone());
                        continue;
                    }
                    _ => file(Kind::Dir(BTreeMap::new()), 0o755),
                },
                LowerKind::File(len) => {
                    file(Kind::File(content(seed(number, at), usize::from(*len))), 0o644)
                }
                LowerKind::Symlink => file(Kind::Symlink(b"target".to_vec()), 0o777),
                LowerKind::Fifo => file(Kind::Fifo, 0o644),
                LowerKind::Hard(target) => {
                    let id = seen[target];
                    self.entries(dir).insert(name, id);
                    seen.insert(lower.path.clone(), id);
                    applied.push(lower.clone());
                    continue;
                }
                LowerKind::Whiteout | LowerKind::Opaque | LowerKind::Bytes(_) => continue,
            };
            let is_dir = matches!(new.kind, Kind::Dir(_));
            let id = self.add(new);
            self.entries(dir).insert(name, id);
            if !is_dir {
                seen.insert(lower.path.clone(), id);
            }
            // Where the content comes from is its place in the layer, so that goes along.
            applied.push(LowerFile {
                path: lower.path.clone(),
                kind: kind_at(&lower.kind, number, at),
            });
        }
        applied
    }

    fn make_dirs(&mut self, path: &[u8]) -> Option<Id> {
        let mut at = ROOT;
        for name in path {
            at = match self.entries(at).get(name).copied() {
                Some(id) if matches!(self.files[id].kind, Kind::Dir(_)) => id,
                Some(_) => return None,
                None => {
                    let id = self.add(file(Kind::Dir(BTreeMap::new()), 0o755));
                    self.entries(at).insert(*name, id);
                    id
                }
            };
        }
        Some(at)
    }

    fn add(&mut self, file: File) -> Id {
        self.files.push(file);
        self.files.len() - 1
    }

    fn entries(&mut self, dir: Id) -> &mut BTreeMap<u8, Id> {
        match &mut self.files[dir].kind {
            Kind::Dir(entries) => entries,
            other => panic!("not a directory: {other:?}"),
        }
    }

    fn get(&self, dir: Id, name: u8) -> Result<Id, &'static str> {
        match &self.files[dir].kind {
            Kind::Dir(entries) => entries.get(&name).copied().ok_or("ENOENT"),
            _ => Err("ENOTDIR"),
        }
    }

    fn find(&self, path: &[u8]) -> Result<Id, &'static str> {
        path.iter().try_fold(ROOT, |dir, name| self.get(dir, *name))
    }

    fn dir_of(&self, path: &[u8]) -> Result<Id, &'static str> {
        let dir = self.find(&path[..path.len() - 1])?;
        match self.files[dir].kind {
            Kind::Dir(_) => Ok(dir),
            _ => Err("ENOTDIR"),
        }
    }

    fn place(&self, path: &[u8]) -> Result<(Id, u8), &'static str> {
        Ok((self.dir_of(path)?, *path.last().expect("no path is empty")))
    }

    fn is_dir(&self, id: Id) -> bool {
        matches!(self.files[id].kind, Kind::Dir(_))
    }

    fn is_empty(&self, id: Id) -> bool {
        matches!(&self.files[id].kind, Kind::Dir(entries) if entries.is_empty())
    }

    fn new_file(&mut self, path: &[u8], new: File) -> Answer {
        let (dir, name) = self.place(path)?;
        if self.get(dir, name).is_ok() {
            return Err("EEXIST");
        }
        let mut new = new;
        if self.files[dir].mode & 0o2000 != 0 {
            new.gid = self.files[dir].gid;
            if matches!(new.kind, Kind::Dir(_)) {
                new.mode |= 0o2000;
            }
        }
        let id = self.add(new);
        self.entries(dir).insert(name, id);
        self.touch(dir);
        Ok(String::new())
    }

    fn touch(&mut self, id: Id) {
        self.files[id].mtime = None;
    }

    fn regular(&mut self, id: Id) -> Result<&mut Vec<u8>, &'static str> {
        match &mut self.files[id].kind {
            Kind::File(bytes) => Ok(bytes),
            Kind::Dir(_) => Err("EISDIR"),
            _ => Err("EINVAL"),
        }
    }

    fn handle(&self, handle: u8) -> Result<Id, &'static str> {
        self.handles[usize::from(handle)].ok_or("closed")
    }

    pub(crate) fn apply(&mut self, op: &Op) -> Answer {
        match op {
            Op::Create(path, mode) => {
                self.new_file(path, file(Kind::File(Vec::new()), u32::from(*mode)))
            }
            Op::Mkdir(path, mode) => {
                self.new_file(path, file(Kind::Dir(BTreeMap::new()), u32::from(*mode)))
            }
            Op::Symlink(path, target) => self
                .new_file(path, file(Kind::Symlink(vec![b'x'; 1 + usize::from(*target)]), 0o777)),
            Op::Mkfifo(path) => self.new_file(path, file(Kind::Fifo, 0o600)),
            Op::Unlink(path) => {
                let (dir, name) = self.place(path)?;
                let id = self.get(dir, name)?;
                if self.is_dir(id) {
                    return Err("EISDIR");
                }
                self.entries(dir).remove(&name);
                self.touch(dir);
                Ok(String::new())
            }
            Op::Rmdir(path) => {
                let (dir, name) = self.place(path)?;
                let id = self.get(dir, name)?;
                if !self.is_dir(id) {
                    return Err("ENOTDIR");
                }
                if !self.is_empty(id) {
                    return Err("ENOTEMPTY");
                }
                self.entries(dir).remove(&name);
                self.touch(dir);
                Ok(String::new())
            }
            Op::Rename(from, to) => self.rename(from, to, false),
            Op::RenameNoReplace(from, to) => self.rename(from, to, true),
            Op::Exchange(from, to) => self.exchange(from, to),
            Op::Link(from, to) => {
                let id = self.find(from)?;
                if self.is_dir(id) {
                    return Err("EPERM");
                }
                let (dir, name) = self.place(to)?;
                if self.get(dir, name).is_ok() {
                    return Err("EEXIST");
                }
                self.entries(dir).insert(name, id);
                self.touch(dir);
                Ok(String::new())
            }
            Op::List(path) => {
                let id = self.find(path)?;
                match &self.files[id].kind {
                    Kind::Dir(entries) => {
                        Ok(entries.keys().map(|name| name_of(*name)).collect::<Vec<_>>().join(" "))
                    }
                    _ => Err("ENOTDIR"),
                }
            }
            Op::Stat(path) => {
                let id = self.find(path)?;
                Ok(self.describe(id))
            }
            Op::Remount => {
                self.handles = [None; 4];
                Ok(String::new())
            }
            _ => self.apply_to_file(op),
        }
    }

    fn apply_to_file(&mut self, op: &Op) -> Answer {
        match op {
            Op::Chmod(path, mode) => {
                let id = self.find(path)?;
                if matches!(self.files[id].kind, Kind::Symlink(_)) {
                    return Err("skipped");
                }
                self.files[id].mode = u32::from(*mode);
            }
            Op::Chown(path, uid, gid) => {
                let id = self.find(path)?;
                let is_dir = self.is_dir(id);
                let file = &mut self.files[id];
                (file.uid, file.gid) = (u32::from(*uid), u32::from(*gid));
                if !is_dir && !matches!(file.kind, Kind::Symlink(_)) {
                    file.mode &= !0o4000;
                    if file.mode & 0o010 != 0 {
                        file.mode &= !0o2000;
                    }
                }
            }
            Op::Utimes(path, time) => {
                let id = self.find(path)?;
                self.files[id].mtime = Some(*time % LATEST);
            }
            Op::Truncate(path, size) => {
                let id = self.find(path)?;
                self.regular(id)?.resize(usize::from(*size), 0);
                self.touch(id);
            }
            Op::SetXattr(path, name, value) => {
                let id = self.find(path)?;
                if !matches!(self.files[id].kind, Kind::File(_) | Kind::Dir(_)) {
                    return Err("skipped");
                }
                let name = xattr_name(*name).to_owned();
                self.files[id].xattrs.insert(name, vec![*value; usize::from(*value) % 9]);
            }
            Op::RemoveXattr(path, name) => {
                let id = self.find(path)?;
                if !matches!(self.files[id].kind, Kind::File(_) | Kind::Dir(_)) {
                    return Err("skipped");
                }
                self.files[id].xattrs.remove(xattr_name(*name)).ok_or("ENODATA")?;
            }
            _ => return self.apply_to_handle(op),
        }
        Ok(String::new())
    }

    fn apply_to_handle(&mut self, op: &Op) -> Answer {
        match op {
            Op::Open(path, truncate) => {
                let id = self.find(path)?;
                let bytes = self.regular(id)?;
                if *truncate {
                    bytes.clear();
                    self.touch(id);
                }
                let Some(free) = self.handles.iter().position(Option::is_none) else {
                    return Err("EMFILE");
                };
                self.handles[free] = Some(id);
                return Ok(free.to_string());
            }
            Op::Close(handle) => {
                self.handle(*handle)?;
                self.handles[usize::from(*handle)] = None;
            }
            Op::Read(handle, offset, len) => {
                let id = self.handle(*handle)?;
                let bytes = self.regular(id)?;
                let start = usize::from(*offset).min(bytes.len());
                let end = (start + usize::from(*len)).min(bytes.len());
                return Ok(strata::digest::Digest::of(&bytes[start..end]).short());
            }
            Op::Write(handle, offset, len, byte) => {
                let id = self.handle(*handle)?;
                let bytes = self.regular(id)?;
                let (start, len) = (usize::from(*offset), usize::from(*len));
                if bytes.len() < start + len {
                    bytes.resize(start + len, 0);
                }
                bytes[start..start + len].fill(*byte);
                self.touch(id);
            }
            Op::FstatHandle(handle) => {
                let id = self.handle(*handle)?;
                return Ok(self.describe(id));
            }
            Op::TruncateHandle(handle, size) => {
                let id = self.handle(*handle)?;
                self.regular(id)?.resize(usize::from(*size), 0);
                self.touch(id);
            }
            other => panic!("not an operation on a file: {other:?}"),
        }
        Ok(String::new())
    }

    fn rename(&mut self, from: &[u8], to: &[u8], no_replace: bool) -> Answer {
        let (dir, name) = self.place(from)?;
        let (new_dir, new_name) = self.place(to)?;
        let id = self.get(dir, name)?;
        if to.starts_with(from) && to != from && self.is_dir(id) {
            return Err("skipped");
        }
        let target = self.get(new_dir, new_name);
        if no_replace && target.is_ok() {
            return Err("EEXIST");
        }
        if let Ok(target) = target {
            if target == id {
                return Ok(String::new());
            }
            match (self.is_dir(id), self.is_dir(target)) {
                (true, true) if !self.is_empty(target) => return Err("ENOTEMPTY"),
                (true, false) => return Err("ENOTDIR"),
                (false, true) => return Err("EISDIR"),
                _ => {}
            }
        }
        self.entries(dir).remove(&name);
        self.entries(new_dir).insert(new_name, id);
        self.touch(dir);
        self.touch(new_dir);
        Ok(String::new())
    }

    fn exchange(&mut self, from: &[u8], to: &[u8]) -> Answer {
        let (dir, name) = self.place(from)?;
        let (new_dir, new_name) = self.place(to)?;
        let id = self.get(dir, name)?;
        if from != to && (to.starts_with(from) || from.starts_with(to)) {
            return Err("skipped");
        }
        let other = self.get(new_dir, new_name)?;
        if id == other {
            return Ok(String::new());
        }
        self.entries(dir).insert(name, other);
        self.entries(new_dir).insert(new_name, id);
        self.touch(dir);
        self.touch(new_dir);
        Ok(String::new())
    }

    /// Counts the names of a file, or the directories in a directory and two.
    fn links(&self, id: Id) -> u32 {
        let dirs = |file: &File| match &file.kind {
            Kind::Dir(entries) => entries.values().copied().collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        if self.is_dir(id) {
            let below = dirs(&self.files[id]).into_iter().filter(|below| self.is_dir(*below));
            return 2 + u32::try_from(below.count()).unwrap();
        }
        let mut count = 0;
        let mut pending = vec![ROOT];
        while let Some(dir) = pending.pop() {
            for below in dirs(&self.files[dir]) {
                count += u32::from(below == id);
                if self.is_dir(below) {
                    pending.push(below);
                }
            }
        }
        count
    }

    fn describe(&self, id: Id) -> String {
        let file = &self.files[id];
        let (kind, content): (_, &[u8]) = match &file.kind {
            Kind::Dir(_) => ("dir", b""),
            Kind::File(bytes) => ("file", bytes),
            Kind::Symlink(target) => ("symlink", target),
            Kind::Fifo => ("fifo", b""),
        };
        let xattrs: Vec<_> = file.xattrs.clone().into_iter().collect();
        let numbers = (file.mode, file.uid, file.gid, self.links(id));
        let mtime = file.mtime.map_or_else(|| "touched".to_owned(), |time| time.to_string());
        format!("{} {mtime}", describe(kind, numbers, content, &xattrs))
    }

    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut pending = vec![(ROOT, String::from("/"))];
        while let Some((id, path)) = pending.pop() {
            tree.insert(path.clone(), self.describe(id));
            if let Kind::Dir(entries) = &self.files[id].kind {
                for (name, below) in entries {
                    let slash = if path == "/" { "" } else { "/" };
                    pending.push((*below, format!("{path}{slash}{}", name_of(*name))));
                }
            }
        }
        tree
    }
}
