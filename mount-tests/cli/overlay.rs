//! The driver for plain directories, as container engines call it.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Session, Who, differences, mounts_below, script, succeed, tree_of};

/// Directories to stack: `low` and `top` with files, `upper` and `work` without, and `merged`.
pub(super) struct Stack {
    pub(super) session: Session,
    pub(super) merged: PathBuf,
}

impl Stack {
    pub(super) fn new(who: Who) -> Self {
        let session = Session::new(who);
        for name in ["top", "low", "upper", "work"] {
            session.dir(name);
        }
        session.who.act(|| {
            script(
                "mkdir -p d/sub e && echo low > both && echo low > d/low && echo low > d/sub/x
                    ln d/low hard && ln -s d/low link && touch -d @1000000000 d both",
                &session.path("low"),
            );
            script("mkdir d && echo top > both && echo top > d/top", &session.path("top"));
        });
        let merged = session.dir("merged");
        Self { session, merged }
    }

    pub(super) fn options(&self, more: &str) -> String {
        let [top, low, upper, work] =
            ["top", "low", "upper", "work"].map(|name| self.session.path(name));
        let (top, low, upper, work) =
            (top.display(), low.display(), upper.display(), work.display());
        format!("lowerdir={top}:{low},upperdir={upper},workdir={work}{more}")
    }

    pub(super) fn mount(&self, more: &str) {
        self.session.run(&["overlay", "-o", &self.options(more), "merged"]);
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.session.who.act(|| fs::read_to_string(self.merged.join(name)).unwrap())
    }
}

#[test]
fn the_program_is_the_driver_by_whose_name_it_is_called() {
    let stack = Stack::new(Who::Root);
    let program = stack.session.command::<&str>(&[]).get_program().to_owned();
    for (name, arguments) in [
        ("fuse-overlayfs", &["-o", &stack.options(",fsync=0"), "merged"][..]),
        ("mount.fuse.strata", &["overlay", "merged", "-o", &stack.options(""), "-t", "strata"]),
    ] {
        symlink(&program, stack.session.path(name)).unwrap();
        let mut command = Command::new(stack.session.path(name));
        // Reading what it says to the end waits until nobody can say more.
        assert_eq!(succeed(command.args(arguments).current_dir(stack.session.path(""))), "");
        assert_eq!(stack.text("both"), "top\n");
        assert_eq!(stack.text("d/low"), "low\n");
        stack.session.detach(&stack.merged);
        let said = succeed(Command::new(stack.session.path(name)).arg("--version"));
        assert!(said.starts_with("strata "), "{said}");
    }
}

#[test]
fn directories_are_merged_and_changes_are_in_the_upper() {
    for who in [Who::Root, Who::User] {
        let stack = Stack::new(who);
        let low = tree_of(&stack.session.path("low"));
        stack.mount("");
        who.act(|| {
            let at = |name: &str| stack.merged.join(name);
            fs::write(at("d/low"), "written\n").unwrap();
            assert_eq!(fs::read_to_string(at("hard")).unwrap(), "written\n");
            fs::remove_file(at("both")).unwrap();
            fs::rename(at("d/sub"), at("e/moved")).unwrap();
        });
        let shown = who.act(|| tree_of(&stack.merged));
        stack.session.detach(&stack.merged);
        assert_eq!(differences(&low, &tree_of(&stack.session.path("low"))), Vec::<String>::new());
        stack.mount("");
        let again = who.act(|| tree_of(&stack.merged));
        assert_eq!(differences(&shown, &again), Vec::<String>::new(), "as {who:?}");
        assert_eq!(stack.text("e/moved/x"), "low\n");
        assert_eq!(stack.text("hard"), "written\n");
    }
}

#[test]
fn without_an_upper_nothing_can_be_changed() {
    for who in [Who::Root, Who::User] {
        let stack = Stack::new(who);
        let options = format!(
            "lowerdir={}:{}",
            stack.session.path("top").display(),
            stack.session.path("low").display()
        );
        stack.session.run(&["overlay", "-o", &options, "merged"]);
        who.act(|| {
            let error = fs::write(stack.merged.join("new"), "").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        });
        assert_eq!(stack.text("d/sub/x"), "low\n");
    }
}

#[test]
fn what_is_wrong_with_the_options_is_one_line_that_names_it() {
    let stack = Stack::new(Who::User);
    for (options, words) in [
        (stack.options(",sparkle"), "sparkle"),
        (stack.options(",fsync=maybe"), "fsync=maybe"),
        (stack.options(",uidmapping=1:2"), "uidmapping=1:2"),
        (stack.options(",timeout=soon"), "timeout=soon"),
        ("upperdir=upper,workdir=work".to_owned(), "lowerdir"),
        ("lowerdir=nowhere".to_owned(), "nowhere"),
        ("lowerdir=low,upperdir=upper".to_owned(), "workdir="),
    ] {
        let said = stack.session.refused(&["overlay", "-o", &options, "merged"]);
        assert!(said.starts_with("Error: ") && said.contains(words), "{options}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(mounts_below(&stack.session.path("")).is_empty());
    }
}

#[test]
fn without_acls_there_are_none_and_with_a_timeout_nothing_is_believed_for_longer() {
    let stack = Stack::new(Who::Root);
    let list = "system.posix_acl_access";
    let default =
        [2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0]
            .into_iter()
            .chain([5, 0, 255, 255, 255, 255])
            .collect::<Vec<u8>>();
    stack.mount(",noacl");
    let set = xattr::set(stack.merged.join("d"), list, &default).unwrap_err();
    assert_eq!(set.raw_os_error(), Some(libc::EOPNOTSUPP));
    let get = xattr::get(stack.merged.join("d"), list).unwrap_err();
    assert_eq!(get.raw_os_error(), Some(libc::EOPNOTSUPP));
    stack.session.detach(&stack.merged);
    stack.mount(",timeout=0");
    xattr::set(stack.merged.join("d"), list, &default).unwrap();
    assert_eq!(stack.text("both"), "top\n");
    // Nobody should change an upper that is mounted, but whoever says timeout=0 expects to see it.
    fs::write(stack.session.path("upper/new"), "behind\n").unwrap();
    assert_eq!(stack.text("new"), "behind\n");
    fs::remove_file(stack.session.path("upper/new")).unwrap();
    assert!(!stack.merged.join("new").exists());
}

#[test]
fn a_label_is_for_a_kernel_that_has_them() {
    let stack = Stack::new(Who::Root);
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return stack.mount(",context=\"system_u:object_r:tmp_t:s0:c1,c2\"");
    }
    let options = stack.options(",context=\"system_u:object_r:tmp_t:s0:c1,c2\"");
    let said = stack.session.refused(&["overlay", "-o", &options, "merged"]);
    assert!(said.contains("tmp_t:s0:c1,c2") && said.contains("SELinux is not enabled"), "{said}");
}

#[test]
fn one_mount_at_a_time_changes_an_upper() {
    let stack = Stack::new(Who::User);
    stack.mount("");
    stack.session.dir("second");
    let said = stack.session.refused(&["overlay", "-o", &stack.options(""), "second"]);
    assert!(said.contains("in use by another mount"), "{said}");
    assert_eq!(stack.text("both"), "top\n");
}

/// The kernel's own driver on the same directories.
pub(super) fn mount_kernel(stack: &Stack, more: &str) {
    let options = stack.options(more);
    succeed(
        Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&stack.merged),
    );
}

pub(super) fn unmount_kernel(stack: &Stack) {
    succeed(Command::new("umount").arg(&stack.merged));
}

const CHANGES: &str = "rm both d/top && mkdir new && echo n > new/file && rm -r e && mkdir e && touch e/only
    mv d/sub moved && chmod 640 d/low && echo more >> moved/x && mv d renamed && ln -s x l && mkfifo f";

#[test]
fn an_upper_moves_between_strata_and_the_kernel() {
    for first in ["strata", "kernel"] {
        let stack = Stack::new(Who::Root);
        // The kernel breaks hard links of a lower, which is none of this test's business.
        fs::remove_file(stack.session.path("low/hard")).unwrap();
        let on_strata = |change: &str| {
            stack.mount(",metacopy=on");
            script(change, &stack.merged);
            let tree = tree_of(&stack.merged);
            stack.session.detach(&stack.merged);
            tree
        };
        let on_kernel = |change: &str| {
            mount_kernel(&stack, ",redirect_dir=on,metacopy=on,index=off");
            script(change, &stack.merged);
            let tree = tree_of(&stack.merged);
            unmount_kernel(&stack);
            tree
        };
        let (written, read) = match first {
            "strata" => (on_strata(CHANGES), on_kernel("true")),
            _ => (on_kernel(CHANGES), on_strata("true")),
        };
        assert!(written.contains_key("/renamed/low") && !written.contains_key("/both"));
        assert_eq!(
            differences(&links_aside(written), &links_aside(read)),
            Vec::<String>::new(),
            "{first} first"
        );
    }
}

/// The kernel does not count the links of a merged directory.
fn links_aside(tree: crate::common::Tree) -> crate::common::Tree {
    let is_dir = |line: &str| line.starts_with('4');
    let cut = |line: String| match line.split_once(" links ") {
        Some((before, _)) if is_dir(&line) => before.to_owned(),
        _ => line,
    };
    tree.into_iter().map(|(name, line)| (name, cut(line))).collect()
}

#[test]
fn lowers_may_be_of_any_file_system_and_go_away_once_mounted() {
    let stack = Stack::new(Who::Root);
    let at = |name: &str| stack.session.path(name);
    let mount = |arguments: &[&str], target: &Path| {
        fs::create_dir_all(target).unwrap();
        succeed(Command::new("mount").args(arguments).arg(target));
    };
    mount(&["-t", "tmpfs", "none"], &at("tmpfs"));
    fs::write(at("tmpfs/in-memory"), "tmpfs\n").unwrap();
    let lower = format!("lowerdir={}:{}", at("top").display(), at("low").display());
    mount(&["-t", "overlay", "overlay", "-o", &lower], &at("merged-by-kernel"));
    mount(&["--bind", at("low").to_str().unwrap()], &at("bound"));
    let lowers = ["tmpfs", "merged-by-kernel", "bound"].map(|name| at(name).display().to_string());
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lowers.join(":"),
        at("upper").display(),
        at("work").display()
    );
    stack.session.run(&["overlay", "-o", &options, "merged"]);
    for name in ["tmpfs", "merged-by-kernel", "bound"] {
        succeed(Command::new("umount").arg("-l").arg(at(name)));
    }
    assert_eq!(stack.text("in-memory"), "tmpfs\n");
    assert_eq!(stack.text("d/top"), "top\n");
    fs::write(stack.merged.join("in-memory"), "changed\n").unwrap();
    fs::rename(stack.merged.join("d"), stack.merged.join("moved")).unwrap();
    assert_eq!(stack.text("moved/low"), "low\n");
    let numbers: Vec<_> = ["in-memory", "moved", "moved/low", "both", "link"]
        .map(|name| fs::symlink_metadata(stack.merged.join(name)).unwrap().ino())
        .into();
    let unique: std::collections::BTreeSet<_> = numbers.iter().collect();
    assert_eq!(unique.len(), numbers.len(), "{numbers:?}");
}

#[test]
fn owners_are_shown_by_a_mapping() {
    let stack = Stack::new(Who::Root);
    std::os::unix::fs::chown(stack.session.path("low/d/low"), Some(1000), Some(1001)).unwrap();
    stack.mount(",uidmapping=:0:100000:65536,gidmapping=:0:200000:65536");
    let owner = |name: &str| {
        let metadata = fs::symlink_metadata(stack.merged.join(name)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("d/low"), (101_000, 201_001));
    assert_eq!(owner("both"), (100_000, 200_000));
    std::os::unix::fs::chown(stack.merged.join("both"), Some(100_007), Some(200_008)).unwrap();
    assert_eq!(owner("both"), (100_007, 200_008));
    let stored = fs::metadata(stack.session.path("upper/both")).unwrap();
    assert_eq!((stored.uid(), stored.gid()), (7, 8));
    let refused = std::os::unix::fs::chown(stack.merged.join("both"), Some(7), None);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    stack.session.detach(&stack.merged);
    stack.mount(",squash_to_uid=5,squash_to_gid=6");
    assert_eq!(owner("d/low"), (5, 6));
}
