//! A check while others work, one after another that was interrupted, one that another one excludes.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::Error;

#[test]
fn nothing_is_told_of_what_others_are_doing() {
    const CHECKS: usize = 6;
    let rich = Rich::new();
    let store = &rich.store;
    let done = AtomicBool::new(false);
    let busy = |work: &dyn Fn(usize)| {
        for number in 0.. {
            if done.load(Ordering::Relaxed) {
                return;
            }
            work(number);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            busy(&|number| {
                let content = vec![u8::try_from(number % 200).unwrap(); 9000];
                let mut stage = store.stage().unwrap();
                let image = add_image(&mut stage, &tar(&[("f", &content)]));
                tag(store, "passing:1", image);
                drop(stage);
                store.remove_reference(&RefName::Named("passing:1".parse().unwrap())).unwrap();
                store.remove_reference(&RefName::Untagged(image)).unwrap();
                store.collect().unwrap();
            });
        });
        scope.spawn(|| {
            busy(&|number| {
                let made = container(&format!("passing {number}"), rich.image);
                store.create_container(&made, |_, _| Ok::<_, Error>(())).unwrap();
                let lock = store.lock_container(&made.id).unwrap();
                let snapshots = store.lock_snapshots(&made.id).unwrap();
                fs::write(store.upper(&made.id).join("f"), "x").unwrap();
                let (name, created) = ("1".to_owned(), Timestamp::UNIX_EPOCH);
                let snapshot = Snapshot { name, created, message: None, before_undo: None };
                store.take_snapshot(&made, &snapshot, Some(&lock), &snapshots, &|| Ok(())).unwrap();
                store.remove_snapshot(&made.id, "1", &snapshots).unwrap();
                store.remove_container(&made.id, &lock).unwrap();
            });
        });
        // Whatever becomes of the checks, the others end.
        let checks = std::panic::AssertUnwindSafe(|| {
            for _ in 0..CHECKS {
                assert_eq!(rich.faults(), []);
            }
        });
        let checked = std::panic::catch_unwind(checks);
        done.store(true, Ordering::Relaxed);
        checked.unwrap();
    });
}

#[test]
fn an_interrupted_check_goes_on_where_it_was() {
    let rich = Rich::new();
    let begin = || {
        let mut check = rich.store.check(CheckScope::default()).unwrap();
        check.learn().unwrap();
        check
    };
    let check = begin();
    let all = check.documents().unwrap();
    let (first, rest) = all.split_at(3);
    for item in first {
        assert_eq!(check.examine(item, &|_| {}).unwrap(), []);
    }
    drop(check);
    let check = begin();
    let left = check.documents().unwrap();
    assert_eq!((left.len(), check.passed_over()), (rest.len(), 3));
    for item in &left {
        check.examine(item, &|_| {}).unwrap();
    }
    check.finish().unwrap();
    // It has ended, so that the next one looks at all, what was looked at first coming first.
    let again = begin().documents().unwrap();
    let keys = |items: &[crate::store::fsck::Item]| {
        items.iter().map(crate::store::fsck::Item::name).collect::<Vec<_>>()
    };
    assert_eq!(again.len(), all.len());
    let mut expected = keys(&all);
    expected.sort();
    let mut found = keys(&again);
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_has_changed_since_it_was_checked_is_checked_again() {
    let rich = Rich::new();
    let check = rich.store.check(CheckScope::default()).unwrap();
    drop(check);
    let mut check = rich.store.check(CheckScope::default()).unwrap();
    check.learn().unwrap();
    for item in check.contents().unwrap() {
        check.examine(&item, &|_| {}).unwrap();
    }
    drop(check);
    let path = rich.store.layout().object(rich.huge);
    overwrite(&path, &[b'x'; 40_000]);
    let mut check = rich.store.check(CheckScope::default()).unwrap();
    check.learn().unwrap();
    let items = check.contents().unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(check.examine(&items[0], &|_| {}).unwrap().len(), 1);
}

#[test]
fn one_check_goes_on_at_a_time() {
    let rich = Rich::new();
    let check = rich.store.check(CheckScope::default()).unwrap();
    let error = rich.store.check(CheckScope::default()).unwrap_err();
    assert!(matches!(error, Error::BeingChecked { .. }), "{error}");
    drop(check);
    rich.store.check(CheckScope::default()).unwrap();
}

#[test]
fn what_is_no_store_is_not_made_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = Store::open_to_check(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    assert!(Store::open_to_check(&folder.path().join("nowhere")).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
