//! The kernel's overlayfs as oracle: the same operations on copies of the same layers must answer the
//! same, and leave the same, but for what the table of deviations says.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::op::{LowerFile, LowerKind, lower, with_links_on_top};
use crate::oracle::act::{Act, How, act, rounds};
use crate::oracle::data::Data;
use crate::oracle::deviations::{DEVIATIONS, Deviation};
use crate::oracle::hands::{Answer, Hands};
use crate::oracle::seen::{Difference, Seen, compare_seen, compare_trees, numbers, tree};
use crate::oracle::worlds::{World, Worlds};
use crate::oracle::{BATCH, config};

/// A tree, and what is done in it.
pub(crate) type Case = (Vec<Vec<LowerFile>>, Vec<Act>);

/// What every tree has in its lowest layer: paths and what is there, so that most of what is done meets
/// something.
const GROUND: [(&[u8], LowerKind); 14] = [
    (&[0], LowerKind::Dir),
    (&[0, 0], LowerKind::Dir),
    (&[0, 0, 0], LowerKind::File(5_000)),
    (&[0, 0, 1], LowerKind::Dir),
    (&[0, 1], LowerKind::Dir),
    (&[0, 2], LowerKind::File(9_000)),
    (&[1], LowerKind::Dir),
    (&[1, 0], LowerKind::Dir),
    (&[1, 0, 2], LowerKind::File(4_096)),
    (&[1, 1], LowerKind::Dir),
    (&[1, 2], LowerKind::Symlink),
    (&[1, 3], LowerKind::Fifo),
    (&[2], LowerKind::File(60_000)),
    (&[3], LowerKind::File(8_193)),
];

/// Puts layers on the ground.
pub(crate) fn on_ground(mut layers: Vec<Vec<LowerFile>>) -> Vec<Vec<LowerFile>> {
    let ground = GROUND.map(|(path, kind)| LowerFile { path: path.to_vec(), kind });
    match layers.first_mut() {
        Some(lowest) => drop(lowest.splice(0..0, ground)),
        None => layers.push(ground.to_vec()),
    }
    layers
}

/// Generates a tree, and what is done in it: at the beginning some files are opened.
fn case() -> impl Strategy<Value = Case> {
    let both = How { read: true, write: true, ..How::default() };
    let reader = How { read: true, ..How::default() };
    let first = [
        Act::Open(0, vec![0, 2], both),
        Act::Open(1, vec![2], reader),
        Act::Open(2, vec![3], both),
    ];
    let layers = lower().prop_map(|layers| on_ground(with_links_on_top(layers)));
    let acts = prop::collection::vec(act(), 1..100);
    (layers, acts.prop_map(move |acts| first.iter().cloned().chain(acts).collect()))
}

/// What was found otherwise in one of strata's mounts than in the kernel's.
#[derive(Debug)]
pub(crate) struct Found {
    tree: usize,
    pub(crate) world: World,
    /// The kernel copied attributes without contents.
    pub(crate) metacopy: bool,
    pub(crate) difference: Difference,
}

/// Tells whether answers say where data or a hole is in a tree that has blocks without data. Whether
/// such a block counts as data depends on which of it the kernel has in memory; `oracle::bytes` sees to
/// it that the answers go with the content.
fn depend_on_memory(acts: &[Act], act: &Act, answers: [&Answer; 2]) -> bool {
    matches!(act, Act::Data(_, Data::Next(_) | Data::Hole(_)))
        && acts.iter().any(|act| matches!(act, Act::Data(_, Data::Allocate(..))))
        && answers.iter().all(|answer| {
            matches!(answer, Answer::Did(_) | Answer::Refused(nix::errno::Errno::ENXIO))
        })
}

fn compare_answers(act: &Act, strata: &Answer, kernel: &Answer) -> Vec<Difference> {
    let at = format!("{act:?}");
    match (strata, kernel) {
        (Answer::Saw(strata), Answer::Saw(kernel)) => compare_seen(&at, strata, kernel),
        _ => {
            let seen = |answer: &Answer| Seen::from([("answer".to_owned(), format!("{answer:?}"))]);
            compare_seen(&at, &seen(strata), &seen(kernel))
        }
    }
}

/// Does everything in all worlds, and returns what differs.
pub(crate) fn differences(cases: &[Case], metacopy: bool) -> Vec<Found> {
    let lowers: Vec<_> = cases.iter().map(|(lower, _)| &lower[..]).collect();
    let worlds = Worlds::new(&lowers, metacopy);
    let mut found = Vec::new();
    compare_all(&worlds, cases.len(), "before anything was done", &mut found);
    let mut hands: Vec<[Hands; 3]> = (0..cases.len())
        .map(|tree| World::ALL.map(|world| Hands::of(world, &worlds.root(world, tree))))
        .collect();
    let rounds: Vec<_> = cases.iter().map(|(_, acts)| rounds(acts)).collect();
    for round in 0..rounds.first().map_or(0, |rounds| rounds.len()) {
        for (tree, (rounds, hands)) in rounds.iter().zip(&mut hands).enumerate() {
            for act in &rounds[round] {
                let [kernel, dirs, image] = hands.each_mut().map(|hands| hands.act(act));
                let mut differ = Vec::new();
                for (world, answer) in [(World::Dirs, dirs), (World::Image, image)] {
                    if depend_on_memory(&cases[tree].1, act, [&answer, &kernel]) {
                        continue;
                    }
                    differ.extend(
                        compare_answers(act, &answer, &kernel)
                            .into_iter()
                            .map(|difference| Found { tree, world, metacopy, difference }),
                    );
                }
                if let Some(handle) = act.changes_through().filter(|_| !differ.is_empty()) {
                    // One may have changed, and the other not: there is nothing more to compare.
                    hands.iter_mut().for_each(|hands| hands.close(handle));
                }
                found.extend(differ);
            }
            hands.iter_mut().for_each(Hands::let_go);
        }
        compare_all(&worlds, cases.len(), &format!("in round {round}"), &mut found);
        remount_all(&worlds, cases.len());
    }
    compare_all(&worlds, cases.len(), "at the end", &mut found);
    found
}

/// Mounts everything again; strata's numbers of inodes stay.
fn remount_all(worlds: &Worlds, trees: usize) {
    let all = |world| (0..trees).map(|tree| numbers(&worlds.root(world, tree))).collect::<Vec<_>>();
    for world in World::ALL {
        if world == World::Kernel {
            worlds.remount(world);
            continue;
        }
        let before = all(world);
        worlds.remount(world);
        assert_eq!(all(world), before, "numbers after a remount of {world:?}");
    }
}

fn compare_all(worlds: &Worlds, trees: usize, when: &str, found: &mut Vec<Found>) {
    for number in 0..trees {
        let kernel = tree(&worlds.root(World::Kernel, number));
        for world in [World::Dirs, World::Image] {
            let strata = tree(&worlds.root(world, number));
            found.extend(compare_trees(&strata, &kernel).into_iter().map(|mut difference| {
                difference.at = format!("{when}, {}", difference.at);
                Found { tree: number, world, metacopy: worlds.metacopy(), difference }
            }));
        }
    }
}

/// Returns what nothing in the table explains.
fn unexplained(found: &[Found]) -> Vec<String> {
    found
        .iter()
        .filter(|found| !DEVIATIONS.iter().any(|deviation| deviation.explains(found)))
        .map(|found| format!("tree {}, {:?}: {:?}", found.tree, found.world, found.difference))
        .collect()
}

#[test]
fn strata_does_what_the_kernels_overlay_does() {
    let cases = prop::collection::vec(case(), 1..=BATCH);
    let ran = TestRunner::new(config(64)).run(&(cases, any::<bool>()), |(cases, metacopy)| {
        prop_assert_eq!(unexplained(&differences(&cases, metacopy)), Vec::<String>::new());
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_deviation_of_the_table_is_there() {
    let examples: Vec<Case> = DEVIATIONS.iter().map(Deviation::example).collect();
    let found = differences(&examples, true);
    assert_eq!(unexplained(&found), Vec::<String>::new());
    for (tree, deviation) in DEVIATIONS.iter().enumerate() {
        let mut of_tree = found.iter().filter(|found| found.tree == tree);
        let is_there = of_tree.any(|found| deviation.explains(found));
        assert!(is_there, "{} is as the kernel has it", deviation.what);
    }
}

#[test]
fn the_table_of_deviations_is_the_one_of_the_page() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/semantics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, table) = page
        .split_once("| found by comparison | strata | overlayfs | why |\n|---|---|---|---|\n")
        .unwrap();
    let rows: Vec<_> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows, DEVIATIONS.each_ref().map(Deviation::row));
}
