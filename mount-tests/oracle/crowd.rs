//! Several actors at once in one mount, each with files of its own and a part of a shared one, so that
//! it is known what each must see.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::layers::extract;
use crate::op::{LowerFile, LowerKind, Op};
use crate::oracle::act::{Act, data_act, name_act};
use crate::oracle::bytes::Bytes;
use crate::oracle::data::{Data, May, Range, on_bytes, on_file};
use crate::oracle::hands::{Answer, Hands};
use crate::oracle::kernel::on_ground;
use crate::oracle::seen::{numbers, tree};
use crate::reference::Reference;

/// What an actor does before it looks whether it should go on.
const ACTS: usize = 400;

/// What an actor has of the shared file.
const SHARE: usize = 1 << 16;

/// A mount, and the trees of its lower.
#[derive(Debug)]
pub(crate) struct Crowd {
    mount: PathBuf,
    /// Trees of the lower; later ones are made in the mount.
    trees: usize,
    next: AtomicUsize,
    actors: usize,
}

/// What must be there at the end.
pub(crate) enum Expected {
    Contents(usize, Bytes),
    Names(usize, Reference),
    Share(usize, Vec<u8>),
}

fn contents() -> Vec<LowerFile> {
    let sizes = [0, 4_096, 50_000, 65_535];
    let file = |(name, len)| LowerFile { path: vec![name], kind: LowerKind::File(len) };
    (0..).zip(sizes).map(file).collect()
}

/// Returns a tree without symbolic links, which the reference does not follow.
fn names() -> Vec<Vec<LowerFile>> {
    let mut layers = on_ground(Vec::new());
    layers[0].retain(|file| !matches!(file.kind, LowerKind::Symlink));
    layers
}

/// Makes a lower: a shared file, and trees for contents and names in turn.
pub(crate) fn fill(root: &Path, trees: usize, actors: usize) {
    fs::create_dir_all(root).unwrap();
    fs::write(root.join("shared"), vec![0; actors * SHARE]).unwrap();
    let names = Reference::new(&names()).layers;
    let contents = Reference::new(&[contents()]).layers;
    for tree in 0..trees {
        let layers = if tree.is_multiple_of(2) { &contents } else { &names };
        extract(&layers[0], &root.join(format!("tree-{tree}")), 0);
    }
}

impl Crowd {
    pub(crate) fn new(mount: &Path, trees: usize, actors: usize) -> Self {
        Self { mount: mount.to_owned(), trees, next: AtomicUsize::new(0), actors }
    }

    /// Lets all work until `go_on` says no; returns what they leave. `seed` is different each time.
    pub(crate) fn work(&self, seed: u8, go_on: &(dyn Fn() -> bool + Sync)) -> Vec<Expected> {
        std::thread::scope(|scope| {
            let start = |actor| {
                let mut bytes = [seed; 32];
                bytes[0] = u8::try_from(actor).unwrap();
                let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
                let config = Config { max_local_rejects: u32::MAX, ..Config::default() };
                let runner = TestRunner::new_with_rng(config, rng);
                scope.spawn(move || self.act(actor, runner, go_on))
            };
            let threads: Vec<_> = (0..self.actors).map(start).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn act(
        &self,
        actor: usize,
        mut runner: TestRunner,
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Vec<Expected> {
        let mut share = vec![0; SHARE];
        let file = File::options().read(true).open(self.mount.join("shared")).unwrap();
        on_file(&file, None, &Data::Read(self.place(actor, (0, 1)))).unwrap();
        share.copy_from_slice(&read_share(&file, actor));
        loop {
            self.act_on_share(actor, &mut share, &mut runner);
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let expected = if number.is_multiple_of(2) {
                self.act_on_contents(number, &mut runner)
            } else {
                self.act_on_names(number, &mut runner)
            };
            if number.is_multiple_of(50) {
                self.look_at_everything();
            }
            if !go_on() {
                return vec![expected, Expected::Share(actor, share)];
            }
            self.check(&expected);
            fs::remove_dir_all(self.tree(number)).unwrap();
        }
    }

    fn tree(&self, number: usize) -> PathBuf {
        self.mount.join(format!("tree-{number}"))
    }

    fn act_on_contents(&self, number: usize, runner: &mut TestRunner) -> Expected {
        let mut bytes = Bytes::new(&if number < self.trees { contents() } else { Vec::new() });
        if number >= self.trees {
            fs::create_dir(self.tree(number)).unwrap();
        }
        let mut hands = Hands::new(&self.tree(number));
        let acts = data_act();
        for _ in 0..ACTS {
            let act = acts.new_tree(runner).unwrap().current();
            if matches!(act, Act::Op(Op::Remount)) {
                hands.let_go();
                bytes.let_go();
                continue;
            }
            let done = bytes.do_both(&mut hands, &act);
            done.unwrap_or_else(|error| panic!("tree {number}: {error}"));
        }
        bytes.let_go();
        Expected::Contents(number, bytes)
    }

    fn act_on_names(&self, number: usize, runner: &mut TestRunner) -> Expected {
        let mut reference = Reference::new(&if number < self.trees { names() } else { Vec::new() });
        if number >= self.trees {
            fs::create_dir(self.tree(number)).unwrap();
        }
        let mut hands = Hands::new(&self.tree(number));
        let acts = name_act();
        for _ in 0..ACTS {
            let op = acts.new_tree(runner).unwrap().current();
            let expected = reference.apply(&op);
            if expected == Err("skipped") {
                continue;
            }
            let found = match hands.act(&Act::Op(op.clone())) {
                Answer::Did(text) => Some(text),
                _ => None,
            };
            // Which of several reasons a refusal gives, the comparison with the kernel looks at.
            assert_eq!(found, expected.ok(), "tree {number}: {op:?}");
        }
        Expected::Names(number, reference)
    }

    /// Returns a range of the actor's part of the shared file.
    fn place(&self, actor: usize, (at, len): Range) -> Range {
        (u32::try_from(actor * SHARE).unwrap() + at, len)
    }

    fn act_on_share(&self, actor: usize, share: &mut Vec<u8>, runner: &mut TestRunner) {
        let size = u32::try_from(SHARE).unwrap();
        let range = (0..size, 1..5_000_u32).prop_map(move |(at, len)| (at, len.min(size - at)));
        let acts = (0..6_u8, range, any::<u8>());
        let open =
            || File::options().read(true).write(true).open(self.mount.join("shared")).unwrap();
        let may = May { read: true, write: true, append: false };
        let mut file = open();
        for _ in 0..50 {
            let (what, range, seed) = acts.new_tree(runner).unwrap().current();
            let data = |range| match what {
                0 | 1 => Data::Write(range, seed),
                2 => Data::MapWrite(range, seed),
                3 => Data::MapRead(range),
                4 => Data::Drop,
                _ => Data::Read(range),
            };
            let expected = on_bytes(share, may, &data(range));
            let found = on_file(&file, None, &data(self.place(actor, range)));
            assert_eq!(found, expected, "actor {actor}, {:?} of its share", data(range));
            if seed < 20 {
                file = open();
            }
        }
    }

    /// Visits everything, whatever others do to it meanwhile.
    fn look_at_everything(&self) {
        let mut pending = vec![self.mount.clone()];
        while let Some(dir) = pending.pop() {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                if entry.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                    pending.push(entry.path());
                }
            }
        }
    }

    /// Checks that what is expected is there.
    pub(crate) fn check(&self, expected: &Expected) {
        match expected {
            Expected::Contents(number, bytes) => {
                let wrong = bytes.check(&tree(&self.tree(*number)), &format!("tree {number}"));
                assert_eq!(wrong, Vec::<String>::new());
            }
            Expected::Names(number, reference) => {
                let found: Vec<_> = numbers(&self.tree(*number)).into_keys().collect();
                let expected: Vec<_> = reference.tree().into_keys().collect();
                assert_eq!(found, expected, "names of tree {number}");
            }
            Expected::Share(actor, share) => {
                let file = File::open(self.mount.join("shared")).unwrap();
                assert!(read_share(&file, *actor) == *share, "share of {actor}");
            }
        }
    }
}

fn read_share(file: &File, actor: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut share = vec![0; SHARE];
    file.read_exact_at(&mut share, (actor * SHARE) as u64).unwrap();
    share
}
