//! What is read, written, mapped, allocated and copied, compared with bytes in memory.

use std::collections::BTreeMap;

use nix::errno::Errno;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::op::{LowerFile, LowerKind, Op, content, name_of};
use crate::oracle::act::{Act, HANDLES, data_act, rounds};
use crate::oracle::data::{Data, May, on_bytes};
use crate::oracle::hands::{Answer, Hands};
use crate::oracle::seen::{Tree, tree};
use crate::oracle::worlds::{World, Worlds};
use crate::oracle::{BATCH, config};

/// A few files in memory, and handles on them.
#[derive(Debug)]
pub(crate) struct Bytes {
    names: BTreeMap<u8, usize>,
    files: Vec<Vec<u8>>,
    handles: [Option<(usize, May)>; HANDLES],
}

impl Bytes {
    /// Has the files of the lower, as they are generated there.
    pub(crate) fn new(lower: &[LowerFile]) -> Self {
        let files: Vec<_> = lower
            .iter()
            .enumerate()
            .map(|(at, file)| match file.kind {
                LowerKind::File(len) => content(at as u64, usize::from(len)),
                _ => Vec::new(),
            })
            .collect();
        let names = lower.iter().zip(0..).map(|(file, number)| (file.path[0], number)).collect();
        Self { names, files, handles: [None; HANDLES] }
    }

    fn find(&self, path: &[u8]) -> Result<usize, Errno> {
        self.names.get(&path[0]).copied().ok_or(Errno::ENOENT)
    }

    fn handle(&self, handle: u8) -> Result<(usize, usize, May), Errno> {
        let mut places = (0..HANDLES).map(|next| (usize::from(handle) + next) % HANDLES);
        places
            .find_map(|place| self.handles[place].map(|(file, may)| (place, file, may)))
            .ok_or(Errno::EBADF)
    }

    /// Does it, and returns what it must answer; nothing where several answers are right.
    fn act(&mut self, act: &Act) -> Result<Option<String>, Errno> {
        match act {
            Act::Open(handle, path, how) => {
                self.handles[usize::from(*handle)] = None;
                let file = match self.find(path) {
                    Ok(_) if how.create && how.exclusive => return Err(Errno::EEXIST),
                    Ok(file) => file,
                    Err(errno) if !how.create => return Err(errno),
                    Err(_) => {
                        self.files.push(Vec::new());
                        self.names.insert(path[0], self.files.len() - 1);
                        self.files.len() - 1
                    }
                };
                if how.truncate && how.write {
                    self.files[file].clear();
                }
                let may = May { read: how.read, write: how.write, append: how.append };
                self.handles[usize::from(*handle)] = Some((file, may));
            }
            Act::Data(handle, data) => {
                let (_, file, may) = self.handle(*handle)?;
                return match data {
                    Data::Next(_) | Data::Hole(_) => Ok(None),
                    Data::Copy(range, to, at) => self.copy((file, may), *range, *to, *at).map(Some),
                    _ => on_bytes(&mut self.files[file], may, data).map(Some),
                };
            }
            Act::Op(Op::Close(handle)) => {
                let (place, ..) = self.handle(*handle)?;
                self.handles[place] = None;
            }
            Act::Op(Op::Rename(from, to)) => {
                let file = self.find(from)?;
                if self.find(to) != Ok(file) {
                    self.names.remove(&from[0]);
                    self.names.insert(to[0], file);
                }
            }
            Act::Op(Op::Link(from, to)) => {
                let file = self.find(from)?;
                if self.find(to).is_ok() {
                    return Err(Errno::EEXIST);
                }
                self.names.insert(to[0], file);
            }
            Act::Op(Op::Unlink(path)) => {
                self.find(path)?;
                self.names.remove(&path[0]);
            }
            Act::Op(Op::Chmod(path, _) | Op::SetXattr(path, ..)) => drop(self.find(path)?),
            Act::Op(Op::Truncate(path, size)) => {
                let file = self.find(path)?;
                self.files[file].resize(usize::from(*size), 0);
            }
            other => panic!("{other:?} is not about contents"),
        }
        Ok(Some(String::new()))
    }

    /// Does it in memory and in a directory; says what is not the same.
    pub(crate) fn do_both(&mut self, hands: &mut Hands, act: &Act) -> Result<(), String> {
        let expected = self.act(act);
        let found = hands.act(act);
        let is_right = match (&expected, act) {
            (Ok(None), Act::Data(handle, data)) => self.may_find(*handle, data, &found),
            (Ok(text), _) => Some(&found) == text.clone().map(Answer::Did).as_ref(),
            (Err(errno), _) => found == Answer::Refused(*errno),
        };
        if is_right { Ok(()) } else { Err(format!("{act:?} is {found:?}, not {expected:?}")) }
    }

    /// Closes everything.
    pub(crate) fn let_go(&mut self) {
        self.handles = [None; HANDLES];
        let used: Vec<_> = self.names.values().copied().collect();
        for (number, file) in self.files.iter_mut().enumerate() {
            if !used.contains(&number) {
                *file = Vec::new();
            }
        }
    }

    fn copy(
        &mut self,
        (from, may): (usize, May),
        (at, len): (u32, u32),
        to: u8,
        to_at: u32,
    ) -> Result<String, Errno> {
        let (_, to, to_may) = self.handle(to)?;
        if !may.read || !to_may.write || to_may.append {
            return Err(Errno::EBADF);
        }
        let size = self.files[from].len();
        let (at, to_at) = ((at as usize).min(size), to_at as usize);
        let len = (len as usize).min(size - at);
        if from == to && to_at + len > at && to_at < at + len {
            return Err(Errno::EINVAL);
        }
        let copied = self.files[from][at..at + len].to_vec();
        let target = &mut self.files[to];
        if len > 0 && target.len() < to_at + len {
            target.resize(to_at + len, 0);
        }
        if len > 0 {
            target[to_at..to_at + len].copy_from_slice(&copied);
        }
        Ok(len.to_string())
    }

    /// Tells whether looking for data or a hole may have found this.
    fn may_find(&self, handle: u8, data: &Data, answer: &Answer) -> bool {
        let Ok((_, file, _)) = self.handle(handle) else { return false };
        let bytes = &self.files[file];
        let zeros = |from: usize, to: usize| bytes[from..to].iter().all(|byte| *byte == 0);
        let found = match answer {
            Answer::Did(text) => text.parse::<usize>().ok(),
            _ => None,
        };
        let none = *answer == Answer::Refused(Errno::ENXIO);
        match data {
            Data::Next(at) | Data::Hole(at) if *at as usize >= bytes.len() => none,
            Data::Next(at) => match found {
                Some(found) => {
                    (*at as usize..bytes.len()).contains(&found) && zeros(*at as usize, found)
                }
                None => none && zeros(*at as usize, bytes.len()),
            },
            Data::Hole(at) => found.is_some_and(|found| {
                found == bytes.len()
                    || (*at as usize..bytes.len()).contains(&found) && bytes[found] == 0
            }),
            _ => false,
        }
    }

    /// Tells what differs in a tree that should have these files.
    pub(crate) fn check(&self, tree: &Tree, when: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let expected: Vec<_> =
            self.names.keys().map(|name| format!("/{}", name_of(*name))).collect();
        let found: Vec<_> = tree.keys().filter(|path| *path != "/").cloned().collect();
        if expected != found {
            wrong.push(format!("{when}: {found:?} is there, and not {expected:?}"));
        }
        for (name, file) in &self.names {
            let bytes = &self.files[*file];
            let digest = strata::digest::Digest::of(bytes).short();
            let seen = tree.get(&format!("/{}", name_of(*name)));
            let content = seen.and_then(|seen| seen.get("content"));
            let expected = format!("{} bytes {digest}", bytes.len());
            if content != Some(&expected) {
                wrong.push(format!("{when}: {} has {content:?}, not {expected}", name_of(*name)));
            }
        }
        wrong
    }
}

/// The files of a tree, and what is done to them.
type Case = (Vec<LowerFile>, Vec<Act>);

fn case() -> impl Strategy<Value = Case> {
    let sizes = prop::collection::vec(any::<u16>(), 3..=4);
    let files = sizes.prop_map(|sizes| {
        let file = |(name, len)| LowerFile { path: vec![name], kind: LowerKind::File(len) };
        (0..).zip(sizes).map(file).collect()
    });
    (files, prop::collection::vec(data_act(), 1..120))
}

/// Does everything, and returns what is not as it is in memory.
fn wrong(cases: &[Case]) -> Vec<String> {
    let lowers: Vec<_> = cases.iter().map(|(lower, _)| vec![lower.clone()]).collect();
    let worlds = Worlds::new(&lowers.iter().map(Vec::as_slice).collect::<Vec<_>>(), true);
    let mut wrong = Vec::new();
    for world in World::ALL {
        let mut bytes: Vec<_> = cases.iter().map(|(lower, _)| Bytes::new(lower)).collect();
        let rounds: Vec<_> = cases.iter().map(|(_, acts)| rounds(acts)).collect();
        for round in 0..rounds.first().map_or(0, |rounds| rounds.len()) {
            for (tree, (bytes, rounds)) in bytes.iter_mut().zip(&rounds).enumerate() {
                let mut hands = Hands::of(world, &worlds.root(world, tree));
                for (number, act) in rounds[round].iter().enumerate() {
                    if let Err(text) = bytes.do_both(&mut hands, act) {
                        let at = format!("{world:?}, tree {tree}, round {round}, {number}");
                        wrong.push(format!("{at}: {text}"));
                    }
                }
                bytes.let_go();
            }
            let check = |when: &str| {
                let trees = bytes.iter().enumerate();
                let check = |(number, bytes): (usize, &Bytes)| {
                    bytes.check(&tree(&worlds.root(world, number)), &format!("{world:?} {when}"))
                };
                trees.flat_map(check).collect::<Vec<_>>()
            };
            wrong.extend(check("before a remount"));
            worlds.remount(world);
            wrong.extend(check("after a remount"));
        }
    }
    wrong
}

#[test]
fn contents_are_what_they_are_in_memory() {
    let cases = prop::collection::vec(case(), 1..=BATCH);
    let ran = TestRunner::new(config(32)).run(&cases, |cases| {
        prop_assert_eq!(wrong(&cases), Vec::<String>::new());
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}
