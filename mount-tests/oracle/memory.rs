//! What a server has in memory for the files that the kernel knows, and that it gives it back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::oracle::soak::{Mount, own, resident_after_dropping};
use crate::oracle::worlds::World;

const DIRS: usize = 400;
const FILES: usize = 100;

/// What a file that is known may take, with its part of what a server needs for the first one. Of plain
/// directories its name and where it is are known as well.
const MOST_BYTES: [(World, u64); 2] = [(World::Dirs, 120), (World::Image, 50)];

fn fill(root: &Path) {
    for dir in 0..DIRS {
        let dir = root.join(format!("directory-{dir}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..FILES {
            fs::write(dir.join(format!("file-with-a-name-{file}")), "").unwrap();
        }
    }
}

/// Looks at every file, and counts them.
fn walk(root: &Path) -> usize {
    let mut count = 0;
    for dir in fs::read_dir(root).unwrap() {
        for file in fs::read_dir(dir.unwrap().path()).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().size(), 0);
            count += 1;
        }
    }
    count
}

#[test]
fn known_files_take_little_memory_and_walks_leave_no_growth() {
    let mut mount = Mount::new(World::Dirs, &fill);
    for (world, most) in MOST_BYTES {
        mount.become_one_of(world);
        let walk = || assert_eq!(walk(&mount.path()), DIRS * FILES);
        let before = own(mount.server());
        walk();
        let known = own(mount.server());
        let per_file = known.saturating_sub(before) / (DIRS * FILES) as u64;
        resident_after_dropping(mount.server());
        walk();
        resident_after_dropping(mount.server());
        let end = own(mount.server());
        let told = format!(
            "{world:?}: {before} bytes, {known} with all files known ({per_file} a file), {end} when \
             they are forgotten after two walks"
        );
        eprintln!("{told}");
        let kept = end.saturating_sub(before);
        assert!(per_file <= most && kept <= known.saturating_sub(before) / 2, "{told}");
    }
    mount.end();
}
