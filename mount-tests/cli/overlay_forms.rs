//! What drivers write into directories, read as layers and as an upper: every form of whiteout, opaque
//! mark, redirect and the like; and layers of every file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::common::{Session, Who, differences, script, succeed, tree_of};

/// Directories `a` over `b` over `c`, and `upper`, `work`, `merged`.
struct Layers(Session);

impl Layers {
    /// Fills the layers by scripts.
    fn new(a: &str, b: &str, c: &str) -> Self {
        let session = Session::new(Who::Root);
        for name in ["a", "b", "c", "data", "upper", "work", "merged"] {
            session.dir(name);
        }
        for (name, text) in [("a", a), ("b", b), ("c", c)] {
            script(text, &session.path(name));
        }
        Self(session)
    }

    fn mount(&self, options: &str) {
        self.0.run(&["overlay", "-o", options, "merged"]);
    }

    fn unmount(&self) {
        self.0.detach(&self.0.path("merged"));
    }

    /// Returns every path below the mount, and the first line of each file.
    fn seen(&self) -> Vec<String> {
        let merged = self.0.path("merged");
        let mut seen = Vec::new();
        for path in tree_of(&merged).into_keys().filter(|path| path != "/") {
            let file = merged.join(&path[1..]);
            let is_file = fs::symlink_metadata(&file).unwrap().is_file();
            let text = if is_file { fs::read_to_string(&file).unwrap() } else { String::new() };
            seen.push(format!("{path} {}", text.lines().next().unwrap_or_default()).trim().into());
        }
        seen
    }
}

/// All of these as layers without an upper, and with the topmost as the upper of the others.
const WAYS: [&str; 2] = ["lowerdir=a:b:c", "lowerdir=b:c,upperdir=a,workdir=work"];

const BELOW: &str =
    "mkdir -p d/sub && echo c > d/gone && echo c > d/kept && echo c > d/sub/x && echo c > file";

#[test]
fn every_form_of_whiteout_hides_what_is_below() {
    let x = "setfattr -n trusted.overlay.opaque -v x d";
    let xattr = |name: &str| {
        format!("touch d/{name} && setfattr -n trusted.overlay.whiteout -v y d/{name}")
    };
    for (form, ways) in [
        ("mkdir d && mknod d/gone c 0 0 && mknod d/sub c 0 0".to_owned(), &WAYS[..]),
        (format!("mkdir d && {} && {} && {x}", xattr("gone"), xattr("sub")), &WAYS[..]),
        ("mkdir d && touch d/.wh.gone d/.wh.sub".to_owned(), &WAYS[..1]),
    ] {
        let layers = Layers::new(&form, "true", BELOW);
        for way in ways {
            layers.mount(way);
            assert_eq!(layers.seen(), ["/d", "/d/kept c", "/file c"], "{form}, {way}");
            let hidden = layers.0.path("merged/d/gone");
            assert!(fs::symlink_metadata(hidden).is_err(), "{form}, {way}");
            layers.unmount();
        }
        // In the middle it hides what is below, and not what is above.
        let layers = Layers::new("mkdir d && echo a > d/gone", &form, BELOW);
        layers.mount(WAYS[0]);
        let expected = ["/d", "/d/gone a", "/d/kept c", "/file c"];
        assert_eq!(layers.seen(), expected, "{form} in the middle");
        layers.unmount();
    }
    // Without the directory's mark an empty file is an empty file, whatever it has itself.
    let layers = Layers::new(&format!("mkdir d && {}", xattr("gone")), "true", BELOW);
    layers.mount(WAYS[0]);
    assert!(layers.seen().contains(&"/d/gone".to_owned()));
}

#[test]
fn every_form_of_opaque_mark_hides_what_is_below() {
    let mark = |name: &str| format!("setfattr -n {name} -v y d");
    for (mark, options) in [
        (mark("trusted.overlay.opaque"), ""),
        (mark("user.overlay.opaque"), ""),
        (mark("user.overlay.opaque"), ",userxattr"),
        (mark("user.fuseoverlayfs.opaque"), ""),
        ("touch d/.wh..wh..opq".to_owned(), ""),
    ] {
        let form = format!("mkdir d && echo a > d/new && {mark}");
        let layers = Layers::new(&form, "mkdir d && echo b > d/b", BELOW);
        layers.mount(&format!("lowerdir=a:b:c{options}"));
        assert_eq!(layers.seen(), ["/d", "/d/new a", "/file c"], "{mark}{options}");
        layers.unmount();
        let layers = Layers::new("mkdir d && echo a > d/a", &form, BELOW);
        layers.mount(&format!("lowerdir=a:b:c,upperdir=upper,workdir=work{options}"));
        assert_eq!(layers.seen(), ["/d", "/d/a a", "/d/new a", "/file c"], "{mark}{options}");
    }
    for (mark, options) in [("trusted", ""), ("user", ",userxattr")] {
        let form = format!("mkdir d && echo a > d/new && setfattr -n {mark}.overlay.opaque -v y d");
        let layers = Layers::new(&form, "true", BELOW);
        layers.mount(&format!("{}{options}", WAYS[1]));
        assert_eq!(layers.seen(), ["/d", "/d/new a", "/file c"], "{mark} in the upper");
        layers.unmount();
    }
}

#[test]
fn redirects_lead_to_another_name_and_to_another_path() {
    let a = "mkdir -p moved beside p/in
        setfattr -n trusted.overlay.redirect -v /d/sub moved
        setfattr -n trusted.overlay.redirect -v d beside
        setfattr -n trusted.overlay.redirect -v /d p/in
        echo a > moved/a";
    let layers = Layers::new(a, "mkdir -p d/sub && echo b > d/sub/b", BELOW);
    for way in WAYS {
        layers.mount(way);
        let seen = layers.seen();
        for path in [
            "/moved/a a",
            "/moved/b b",
            "/moved/x c",
            "/beside/kept c",
            "/beside/sub/b b",
            "/p/in/gone c",
        ] {
            assert!(seen.contains(&path.to_owned()), "{way}: {path} is not in {seen:?}");
        }
        layers.unmount();
    }
}

#[test]
fn contents_come_from_where_attributes_say() {
    let meta = |name: &str, redirect: &str| {
        let redirect = match redirect {
            "" => String::new(),
            path => format!(" && setfattr -n trusted.overlay.redirect -v {path} {name}"),
        };
        format!("truncate -s 2 {name} && setfattr -n trusted.overlay.metacopy {name}{redirect}\n")
    };
    let a = [
        meta("file", ""),
        meta("moved", "/d/kept"),
        meta("beside", "file"),
        meta("of-data", "/ab/object"),
        meta("twice", "/link"),
        "chmod 640 *".to_owned(),
    ];
    let b = meta("link", "/d/gone");
    let layers = Layers::new(&a.concat(), &b, BELOW);
    script("mkdir ab && echo D > ab/object && echo no > ab/other", &layers.0.path("data"));
    for way in WAYS {
        layers.mount(&way.replace(":c", ":c::data"));
        let merged = layers.0.path("merged");
        for (name, content) in [
            ("file", "c\n"),
            ("moved", "c\n"),
            ("beside", "c\n"),
            ("of-data", "D\n"),
            ("twice", "c\n"),
        ] {
            let path = merged.join(name);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640, "{name}, {way}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content, "{name}, {way}");
        }
        // What only gives contents is not seen itself.
        assert!(!merged.join("ab").exists(), "{way}");
        layers.unmount();
    }
    // And is copied up from there.
    layers.mount("lowerdir=a:b:c::data,upperdir=upper,workdir=work");
    script(
        "echo more >> of-data && echo more >> twice && mv moved again && echo x >> again",
        &layers.0.path("merged"),
    );
    layers.unmount();
    layers.mount("lowerdir=a:b:c::data,upperdir=upper,workdir=work");
    let text = |name: &str| fs::read_to_string(layers.0.path("merged").join(name)).unwrap();
    assert_eq!((text("of-data"), text("twice")), ("D\nmore\n".to_owned(), "c\nmore\n".to_owned()));
    assert_eq!(text("again"), "c\nx\n");
}

#[test]
fn a_file_whose_content_is_nowhere_is_an_error_and_not_a_hole() {
    let a = "truncate -s 2 lost beside && setfattr -n trusted.overlay.metacopy lost
        setfattr -n trusted.overlay.redirect -v /ab/object lost
        setfattr -n trusted.overlay.metacopy beside && echo a > there && mkdir sub";
    let layers = Layers::new(a, "true", BELOW);
    for way in WAYS {
        layers.mount(&way.replace(":c", ":c::data"));
        let merged = layers.0.path("merged");
        for name in ["lost", "beside"] {
            let error = fs::read(merged.join(name)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{name}, {way}");
        }
        let listed = fs::read_dir(&merged).unwrap().count();
        assert_eq!((listed, fs::metadata(&merged).unwrap().nlink()), (6, 4), "{way}");
        assert_eq!(fs::read_to_string(merged.join("there")).unwrap(), "a\n", "{way}");
        layers.unmount();
    }
}

#[test]
fn escaped_marks_are_attributes_of_files() {
    let a = "mkdir d && touch d/f && setfattr -n trusted.overlay.overlay.opaque -v y d
        setfattr -n trusted.overlay.overlay.metacopy -v x d/f
        setfattr -n trusted.overlay.origin -v x d/f";
    let layers = Layers::new(a, "true", BELOW);
    let merged = layers.0.path("merged");
    for way in WAYS {
        layers.mount(way);
        // It hides nothing, and is what a program in the mount has set.
        assert!(merged.join("d/kept").exists(), "{way}");
        let get = |name: &str, path: &str| xattr::get(merged.join(path), name).unwrap();
        assert_eq!(get("trusted.overlay.opaque", "d"), Some(b"y".to_vec()), "{way}");
        assert_eq!(get("trusted.overlay.metacopy", "d/f"), Some(b"x".to_vec()), "{way}");
        assert_eq!(get("trusted.overlay.origin", "d/f"), None, "{way}");
        let listed: Vec<_> = xattr::list(merged.join("d/f")).unwrap().collect();
        assert_eq!(listed, ["trusted.overlay.metacopy"], "{way}");
        layers.unmount();
    }
    layers.mount("lowerdir=a:b:c,upperdir=upper,workdir=work");
    xattr::set(merged.join("d/f"), "trusted.overlay.redirect", b"/x").unwrap();
    layers.unmount();
    let upper = |name: &str| xattr::get(layers.0.path("upper/d/f"), name).unwrap();
    assert_eq!(upper("trusted.overlay.overlay.redirect"), Some(b"/x".to_vec()));
    assert_eq!(upper("trusted.overlay.overlay.metacopy"), Some(b"x".to_vec()));
    assert_eq!(upper("trusted.overlay.redirect"), None);
}

#[test]
fn owners_that_podman_has_written_are_shown() {
    let a = "mkdir d && touch d/f tty && setfattr -n user.containers.override_stat -v 5:6:2750 d
        setfattr -n user.containers.override_stat -v 7:8:4711:file d/f
        setfattr -n user.containers.override_stat -v 0:5:620:char4:1 tty
        echo -n target > link && setfattr -n user.containers.override_stat -v 1:2:777:symlink link";
    let layers = Layers::new(a, "true", "true");
    for way in WAYS {
        layers.mount(&format!("{way},xattr_permissions=2"));
        let shown = |name: &str| {
            let stat = fs::symlink_metadata(layers.0.path("merged").join(name)).unwrap();
            format!(
                "{:o} {}:{} {:x} {}",
                stat.mode(),
                stat.uid(),
                stat.gid(),
                stat.rdev(),
                stat.size()
            )
        };
        assert!(shown("d").starts_with("42750 5:6 0 "), "{way}: {}", shown("d"));
        assert_eq!(shown("d/f"), "104711 7:8 0 0", "{way}");
        assert_eq!(shown("tty"), "20620 0:5 401 0", "{way}");
        assert_eq!(shown("link"), "120777 1:2 0 6", "{way}");
        let target = fs::read_link(layers.0.path("merged/link")).unwrap();
        assert_eq!(target, Path::new("target"), "{way}");
        layers.unmount();
    }
    // Nobody who does not say so is shown what everybody may write there.
    layers.mount(WAYS[0]);
    assert_eq!(fs::metadata(layers.0.path("merged/d/f")).unwrap().mode(), 0o100_644);
}

const CHANGES: &str =
    "echo more >> d/kept && rm d/gone && mv d/sub moved && chmod 600 file && mkdir new
    echo new > new/n && ln -s x new/l";

#[test]
fn a_layer_may_be_a_union_of_the_kernel_or_of_strata() {
    for kind in ["kernel", "strata"] {
        let layers = Layers::new("echo a > a", "mkdir d && echo b > d/b", BELOW);
        let session = &layers.0;
        let below = session.dir("below");
        let options = |names: &[&str]| {
            let paths = names.iter().map(|name| session.path(name).display().to_string());
            format!("lowerdir={}", paths.collect::<Vec<_>>().join(":"))
        };
        if kind == "kernel" {
            let mut mount = Command::new("mount");
            mount.args(["-t", "overlay", "overlay", "-o", &options(&["b", "c"])]).arg(&below);
            succeed(&mut mount);
        } else {
            session.run(&["overlay", "-o", &options(&["b", "c"]), "below"]);
        }
        let flat = || {
            layers.mount("lowerdir=a:b:c,upperdir=upper,workdir=work");
            let before = tree_of(&session.path("merged"));
            layers.unmount();
            before
        };
        let direct = flat();
        layers.mount("lowerdir=a:below,upperdir=upper,workdir=work");
        let stacked = tree_of(&session.path("merged"));
        let without_links = |line: &str| -> String {
            // The kernel says 1 of a merged directory.
            line.split(" links ").next().unwrap().to_owned()
        };
        for (path, line) in &direct {
            assert_eq!(without_links(&stacked[path]), without_links(line), "{path}, {kind}");
        }
        assert_eq!(stacked.len(), direct.len(), "{kind}");
        script(CHANGES, &session.path("merged"));
        let changed = tree_of(&session.path("merged"));
        layers.unmount();
        layers.mount("lowerdir=a:below,upperdir=upper,workdir=work");
        assert_eq!(differences(&changed, &tree_of(&session.path("merged"))), Vec::<String>::new());
        assert!(changed["/d/kept"].contains(" 7 bytes "), "{}", changed["/d/kept"]);
        layers.unmount();
    }
}

#[test]
fn layers_on_different_file_systems_keep_their_files_apart() {
    let layers = Layers::new("true", "true", BELOW);
    let session = &layers.0;
    for (name, text) in [("a", "mkdir d && echo a > d/a && echo a > one"), ("b", BELOW)] {
        succeed(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(session.path(name)));
        script(text, &session.path(name));
    }
    layers.mount("lowerdir=a:b:c,upperdir=upper,workdir=work");
    let merged = session.path("merged");
    let numbers = || -> Vec<(String, u64)> {
        let paths = tree_of(&merged).into_keys();
        let ino = |path: &str| fs::symlink_metadata(merged.join(&path[1..])).unwrap().ino();
        paths.map(|path| (path.clone(), ino(&path))).collect()
    };
    let before = numbers();
    let unique: std::collections::BTreeSet<_> = before.iter().map(|(_, ino)| ino).collect();
    assert_eq!(unique.len(), before.len(), "{before:?}");
    script("echo x >> one && echo x >> d/a && chmod 600 d/kept file && touch d", &merged);
    assert_eq!(numbers(), before);
    layers.unmount();
    layers.mount("lowerdir=a:b:c,upperdir=upper,workdir=work");
    assert_eq!(numbers(), before);
    let devices: std::collections::BTreeSet<_> = ["", "one", "d", "d/kept", "d/sub/x"]
        .map(|path| fs::symlink_metadata(merged.join(path)).unwrap().dev())
        .into();
    assert_eq!(devices.len(), 1);
}

#[test]
fn the_kernel_takes_a_mount_as_a_layer() {
    let layers = Layers::new("mknod file c 0 0", "mkdir d && echo b > d/b", BELOW);
    let session = &layers.0;
    layers.mount("lowerdir=a:b:c,upperdir=upper,workdir=work");
    script("echo more >> d/kept && echo new > new", &session.path("merged"));
    let shown = tree_of(&session.path("merged"));
    let [above, up, work] = ["above", "up", "up-work"].map(|name| session.dir(name));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        session.path("merged").display(),
        up.display(),
        work.display()
    );
    let mut mount = Command::new("mount");
    succeed(mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(&above));
    let without_links = |tree: crate::common::Tree| -> Vec<String> {
        let cut = |(path, line): (String, String)| {
            let line = line.split(" links ").next().unwrap_or_default().to_owned();
            format!("{path} {line}")
        };
        tree.into_iter().filter(|(path, _)| path != "/").map(cut).collect()
    };
    assert_eq!(without_links(tree_of(&above)), without_links(shown.clone()));
    script("echo again >> d/kept && rm -r d/sub && chmod 600 new && echo x > d/mine", &above);
    assert_eq!(fs::read_to_string(above.join("d/kept")).unwrap(), "c\nmore\nagain\n");
    assert_eq!(fs::read_to_string(above.join("d/mine")).unwrap(), "x\n");
    assert!(!above.join("d/sub").exists());
    // What the kernel changes is its own.
    assert_eq!(differences(&shown, &tree_of(&session.path("merged"))), Vec::<String>::new());
    succeed(Command::new("umount").arg(&above));
}
