//! The images that the commands are run on, as an archive that docker of any age loads.
//!
//! They are the same bytes wherever they are made, so what is a digest of them is so too.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;

use serde_json::{Value, json};
use strata::digest::Digest;
use tar::{Builder, EntryType, Header};

/// When the files were last changed.
const CHANGED: u64 = 981_173_106;

/// A file of a layer: its path, its mode, its content. A path that ends with a slash is a directory.
type Entry = (&'static str, u32, &'static str);

const BASE: &[Entry] = &[
    ("bin/", 0o755, ""),
    ("bin/tool", 0o755, "#!/bin/sh\necho a tool\n"),
    ("etc/", 0o755, ""),
    ("etc/motd", 0o644, "Welcome\n"),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
    ("srv/", 0o755, ""),
    ("srv/data/", 0o755, ""),
    ("srv/data/one", 0o644, "1\n"),
    ("srv/data/two", 0o644, "2\n"),
    ("tmp/", 0o1777, ""),
];
const APP: &[Entry] = &[
    ("app/", 0o755, ""),
    ("app/run", 0o755, "#!/bin/sh\nexec /bin/tool\n"),
    ("etc/", 0o755, ""),
    ("etc/motd", 0o644, "Welcome to the app\n"),
    ("srv/", 0o755, ""),
    ("srv/data/", 0o755, ""),
    ("srv/data/.wh.two", 0o644, ""),
];
const NEXT: &[Entry] = &[("app/", 0o755, ""), ("app/next", 0o644, "the next one\n")];

/// The digests of what was made.
pub(crate) type Known = HashSet<String>;

/// Makes `images.tar`, `rootfs.tar` and the folder `site` in a folder.
pub(crate) fn make(folder: &Path) -> Known {
    let (base, app, next) = (layer(BASE), layer(APP), layer(NEXT));
    fs::write(folder.join("rootfs.tar"), &base).unwrap();
    fs::create_dir_all(folder.join("site/deep")).unwrap();
    for (name, text) in [("index", "a page\n"), ("deep/leaf", "a leaf\n")] {
        let path = folder.join("site").join(name);
        fs::write(&path, text).unwrap();
        let changed = std::time::UNIX_EPOCH + std::time::Duration::from_secs(CHANGED);
        File::options().write(true).open(path).unwrap().set_modified(changed).unwrap();
    }
    let mut archive = Archive::default();
    let base_steps = [("2001-02-03T04:05:06Z", "/bin/sh -c #(nop) ADD file:base in / ", true)];
    let app_steps = [
        base_steps[0],
        ("2002-03-04T05:06:07Z", "/bin/sh -c #(nop)  CMD [\"/bin/tool\" \"--flag\"]", false),
        ("2002-03-04T05:06:08Z", "/bin/sh -c make -C /src install DESTDIR=/app PREFIX=/ all", true),
    ];
    let next_steps =
        [&app_steps[..], &[("2003-04-05T06:07:08Z", "COPY next /app # buildkit", true)]].concat();
    let plain = json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]});
    let full = json!({
        "Cmd": ["/bin/tool", "--flag"], "Entrypoint": ["/bin/sh", "-c"],
        "Env": ["PATH=/bin:/app", "LANG=C.UTF-8"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"stage": "test", "team": "blue & <green>"}, "User": "1000:1000",
        "StopSignal": "SIGINT", "Volumes": {"/srv/data": {}}, "WorkingDir": "/app",
    });
    archive.add(&["demo/base:1", "demo/base:latest"], &plain, &base_steps, &[&base]);
    archive.add(&["demo/app:1"], &full, &app_steps, &[&base, &app]);
    archive.add(&["demo/app:2"], &full, &next_steps, &[&base, &app, &next]);
    archive.write(&folder.join("images.tar"))
}

/// Returns the tar of a layer.
fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, mode, content) in entries {
        let mut header = Header::new_ustar();
        let is_dir = path.ends_with('/');
        header.set_entry_type(if is_dir { EntryType::Directory } else { EntryType::Regular });
        header.set_mode(*mode);
        header.set_mtime(CHANGED);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// An archive as docker wrote it before version 25.
#[derive(Default)]
struct Archive {
    files: Vec<(String, Vec<u8>)>,
    images: Vec<Value>,
    known: Known,
}

impl Archive {
    /// Adds an image: its names, configuration, steps (time, command, whether there is a layer of it) and
    /// layers.
    fn add(
        &mut self,
        names: &[&str],
        config: &Value,
        steps: &[(&str, &str, bool)],
        tars: &[&[u8]],
    ) {
        let digests: Vec<_> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let history: Vec<_> = steps
            .iter()
            .map(|(created, command, has_layer)| match has_layer {
                true => json!({"created": created, "created_by": command}),
                false => json!({"created": created, "created_by": command, "empty_layer": true}),
            })
            .collect();
        let document = json!({
            "architecture": "amd64", "os": "linux", "config": config, "author": "A. Person",
            "created": steps.last().expect("a step").0, "history": history,
            "rootfs": {
                "type": "layers",
                "diff_ids": digests.iter().map(ToString::to_string).collect::<Vec<_>>(),
            },
        });
        let document = document.to_string().into_bytes();
        let id = hex(&Digest::of(&document));
        let layers: Vec<_> = digests.iter().map(|digest| format!("{}.tar", hex(digest))).collect();
        self.images
            .push(json!({"Config": format!("{id}.json"), "RepoTags": names, "Layers": layers}));
        self.files.push((format!("{id}.json"), document));
        let files = layers.into_iter().zip(tars.iter().map(|tar| tar.to_vec()));
        self.files.extend(files);
        self.known.insert(id);
        self.know_layers(&digests);
    }

    /// Learns layers and the stacks of them from the lowest.
    fn know_layers(&mut self, digests: &[Digest]) {
        let mut chain: Option<Digest> = None;
        for digest in digests {
            self.known.insert(hex(digest));
            let next =
                chain.map_or(*digest, |below| Digest::of(format!("{below} {digest}").as_bytes()));
            self.known.insert(hex(&next));
            chain = Some(next);
        }
    }

    fn write(mut self, path: &Path) -> Known {
        let manifest = Value::Array(self.images).to_string().into_bytes();
        self.files.push(("manifest.json".to_owned(), manifest));
        self.files.sort();
        self.files.dedup();
        let mut tar = Builder::new(File::create(path).unwrap());
        for (name, bytes) in &self.files {
            let mut header = Header::new_ustar();
            header.set_mode(0o644);
            header.set_mtime(CHANGED);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        tar.finish().unwrap();
        self.known
    }
}

fn hex(digest: &Digest) -> String {
    digest.to_string().trim_start_matches("sha256:").to_owned()
}
