//! Real programs at work in a mounted image.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::common::{Registry, Session, Who, differences, fixtures, script, succeed, tree_of};

/// Mounts a fresh Debian to write to, with the packages of the fixtures in `/packages`.
fn writable_debian(session: &Session) -> std::path::PathBuf {
    // The user of the session may not be able to reach where the fixtures are.
    let tar = File::open(fixtures().join("debian.tar")).unwrap();
    succeed(session.command(&["import", "-", "debian:1"]).stdin(tar));
    let packages = fs::read_dir(fixtures().join("packages")).unwrap().map(|package| {
        let package = package.unwrap();
        (package.file_name(), fs::read(package.path()).unwrap())
    });
    let packages: Vec<_> = packages.collect();
    let mount = session.dir("mount");
    // Who enters an image as a system needs its /dev.
    session.run(&["mount", "-o", "dev,suid", "--rw", "--name", "work", "debian:1", "mount"]);
    session.who.act(|| {
        fs::create_dir(mount.join("packages")).unwrap();
        for (name, bytes) in packages {
            fs::write(mount.join("packages").join(name), bytes).unwrap();
        }
    });
    mount
}

/// Checks that nothing is lost when the mount is made anew, and what dpkg thinks of its files.
fn survives_a_remount(session: &Session, mount: &Path) {
    let before = session.who.act(|| tree_of(mount));
    session.unmount("mount");
    session.run(&["mount", "-o", "dev,suid", "work", "mount"]);
    let after = session.who.act(|| tree_of(mount));
    assert_eq!(differences(&before, &after), Vec::<String>::new());
}

#[test]
fn apt_installs_and_removes_packages_with_their_scripts() {
    let session = Session::new(Who::Root);
    let mount = writable_debian(&session);
    let chroot = |text: &str| {
        let mut command = Command::new("chroot");
        command.arg(&mount).args(["/bin/sh", "-ec", text]).env_clear();
        succeed(
            command
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    chroot("apt-get install -y --no-install-recommends /packages/*.deb 2>&1");
    assert_eq!(chroot("dpkg --verify; dpkg --audit"), "");
    assert!(chroot("nano --version").contains("GNU nano"));
    // Made by scripts of the packages: links to certificates, and a group of its own.
    assert!(chroot("ls /etc/ssl/certs | wc -l").trim().parse::<u32>().unwrap() > 200);
    assert!(chroot("stat -c '%G %a' /usr/bin/crontab").starts_with("crontab 2755"));
    survives_a_remount(&session, &mount);
    chroot("apt-get purge -y nano cron ca-certificates 2>&1");
    assert_eq!(chroot("dpkg --verify; dpkg --audit; ls /etc/ssl/certs"), "");
    survives_a_remount(&session, &mount);
}

#[test]
fn an_ordinary_user_installs_packages_in_a_user_namespace() {
    let session = Session::new(Who::User);
    let mount = writable_debian(&session);
    let chroot = |text: &str| {
        let mut command = Command::new("unshare");
        command.args(["-Ur", "chroot"]).arg(&mount).args(["/bin/sh", "-ec", text]).env_clear();
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        succeed(Who::User.run(&mut command))
    };
    chroot("dpkg -i /packages/nano_*.deb /packages/libncursesw6_*.deb 2>&1");
    assert_eq!(chroot("dpkg --verify; dpkg --audit"), "");
    assert!(chroot("nano --version").contains("GNU nano"));
    survives_a_remount(&session, &mount);

    let registry = Registry::start();
    let image = registry.image("nano:1");
    session.run(&["commit", "work", &image]);
    session.run(&["push", "-q", &image]);
    registry.fetch("nano:1", &session.path("fetched"));
}

/// A repository of a crate with a build script, a module for each of many files, and a test.
const REPOSITORY: &str = r#"git init -q --initial-branch=main .
    mkdir src && printf '[package]\nname = "built"\nversion = "0.1.0"\nedition = "2021"\n' > Cargo.toml
    echo 'fn main() { println!("cargo:rustc-env=SAID=by the build script"); }' > build.rs
    for i in $(seq 100); do echo "pub fn f() -> u32 { $i }" > src/m$i.rs; echo "mod m$i;"; done > src/main.rs
    { echo 'fn main() { let sum ='; for i in $(seq 100); do echo "m$i::f() +"; done
      echo '0; println!("{sum} {}", env!("SAID")); }'; } >> src/main.rs
    printf 'target\n' > .gitignore
    git add . && git -c user.name=t -c user.email=t@localhost commit -qm first"#;

/// Git takes a repository only from its owner unless it is told otherwise; what an ordinary user
/// makes in a mount is root's, as it will be in the image.
const CLONE: &str = "git config --global safe.directory '*'
    git clone -q ../repository clone && cd clone && git fsck --strict
    test -z \"$(git status --porcelain)\"
    git mv src/m1.rs src/n1.rs && git -c user.name=t -c user.email=t@localhost stash -q && git gc -q
    test -z \"$(git status --porcelain)\"";

#[test]
fn a_repository_is_cloned_and_built() {
    for who in [Who::Root, Who::User] {
        let session = Session::new(who);
        let repository = session.dir("repository");
        who.act(|| script(REPOSITORY, &repository));
        fs::write(session.dir("image").join("file"), "").unwrap();
        session.run(&["import", "image", "work:1"]);
        let mount = session.dir("mount");
        session.run(&["mount", "--rw", "--name", "work", "work:1", "mount"]);
        who.act(|| script(CLONE, &mount));
        if who == Who::Root {
            build(&mount.join("clone"));
        }
        survives_a_remount(&session, &mount);
    }
}

/// Builds the crate twice; the second time there is nothing to do, which cargo tells by times.
fn build(dir: &Path) {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).current_dir(dir).env_remove("CARGO_TARGET_DIR");
        crate::common::run(command.env_remove("RUSTFLAGS"))
    };
    let first = cargo(&["run", "--offline"]);
    assert_eq!(first.stdout, "5050 by the build script\n", "{}", first.stderr);
    assert!(first.stderr.contains("Compiling built"), "{}", first.stderr);
    let second = cargo(&["run", "--offline"]);
    assert_eq!(second.stdout, "5050 by the build script\n", "{}", second.stderr);
    assert!(!second.stderr.contains("Compiling"), "{}", second.stderr);
}
