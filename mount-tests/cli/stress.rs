//! Many processes at work on one store, some of which are killed: what somebody has named is there, whole,
//! and what nobody needs is gone.
//!
//! Each worker has images and containers of its own and knows what must be in them; the images of a
//! registry belong to all. `STRATA_STRESS_WORKERS` and `STRATA_STRESS_STEPS` say how much is done
//! (`scripts/stress`), `STRATA_STRESS_SEED` does the same again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::common::{
    Crafted, Dice, Output, Packing, Registry, Session, Who, noise, setting, spawn,
};

const WORKERS: u64 = 6;
const STEPS: u64 = 12;
/// Images of the registry, which share their layers.
const SHARED: usize = 5;
/// Images that a worker has at most.
const OWN: u64 = 4;

/// The store that all work on, and a registry.
struct Place {
    session: Session,
    registry: Registry,
    layers: Vec<Crafted>,
    /// When the last step begins at the latest, in the long form.
    end: Option<Instant>,
    killed: AtomicU64,
    slowest: AtomicU64,
}

struct Worker<'a> {
    place: &'a Place,
    number: u64,
    dice: Dice,
    made: u64,
    /// What is in `file` of the images of its own, by their names.
    images: BTreeMap<String, String>,
    /// Names that it has given to images of the registry, which anybody may remove.
    tags: Vec<String>,
    history: Vec<String>,
}

impl Place {
    fn new(seed: u64) -> Self {
        let registry = Registry::start();
        let layer = |at: usize| {
            let len = [70_000, 300, 5 << 20, 20_000, 900_000, 40][at];
            let content: Vec<u8> = noise(len + at).split_off(at);
            let packing = if at.is_multiple_of(2) { Packing::Gzip } else { Packing::Zstd };
            Crafted::new(packing, &[(&format!("shared-{at}"), &content), ("file", b"shared\n")])
        };
        let layers: Vec<_> = (0..6).map(layer).collect();
        for at in 0..SHARED {
            let own: Vec<_> = [at, (at + 1) % 6, (at + 3) % 6].map(|at| layers[at].clone()).into();
            let diff_ids: Vec<_> = own.iter().map(|layer| layer.diff_id.as_str()).collect();
            let config = json!({
                "os": "linux", "architecture": "amd64", "config": {"Labels": {"shared": "yes"}},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            });
            registry.put_config(&format!("shared{at}:1"), &config, &own);
        }
        let seconds = setting("STRATA_STRESS_SECONDS", 0);
        let end = (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds));
        eprintln!("seed {seed}");
        let session = Session::new(Who::Root);
        let (killed, slowest) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { session, registry, layers, end, killed, slowest }
    }

    fn shared(&self, at: usize) -> String {
        self.registry.image(&format!("shared{at}:1"))
    }

    fn is_over(&self, step: u64) -> bool {
        match self.end {
            Some(end) => Instant::now() >= end,
            None => step >= setting("STRATA_STRESS_STEPS", STEPS),
        }
    }
}

impl Worker<'_> {
    fn work(&mut self) {
        let mut step = 0;
        while !self.place.is_over(step) {
            match self.dice.below(20) {
                0..=2 => self.pull(),
                3 => self.pull_killed(),
                4 => self.remove_shared(),
                5 => self.tag_shared(),
                6..=7 => self.import(),
                8 => self.import_killed(),
                9 => self.commit_killed(),
                10..=12 => self.commit(),
                13 => self.copy(),
                14 => self.push(),
                15..=16 => self.remove(),
                17 => self.prune(),
                18 => self.look_around(),
                _ => self.look_at_all(),
            }
            step += 1;
        }
        self.look_at_all();
    }

    /// Does a command that must succeed.
    #[track_caller]
    fn run(&mut self, words: &[&str]) -> String {
        let output = self.try_run(words);
        assert_eq!(output.code, 0, "{}", self.tell(words, &output));
        output.stdout
    }

    /// Does a command that must succeed or say one of these. Tells whether it did.
    #[track_caller]
    fn run_unless(&mut self, words: &[&str], reasons: &[&str]) -> bool {
        let output = self.try_run(words);
        let is_foreseen = reasons.iter().any(|reason| output.stderr.contains(reason));
        assert!(output.code == 0 || is_foreseen, "{}", self.tell(words, &output));
        output.code == 0
    }

    fn try_run(&mut self, words: &[&str]) -> Output {
        self.history.push(words.join(" "));
        let begin = Instant::now();
        let output = self.place.session.try_run(words);
        let took = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        if words.first() == Some(&"mount") {
            self.place.slowest.fetch_max(took, Ordering::Relaxed);
        }
        output
    }

    fn tell(&self, words: &[&str], output: &Output) -> String {
        let history = self.history.join("\n  ");
        format!("worker {}: {words:?}: {output:?}\nbefore:\n  {history}", self.number)
    }

    /// Begins a command, and kills it when some time has gone by; or it has ended.
    fn run_killed(&mut self, words: &[&str]) {
        self.history.push(format!("killed: {}", words.join(" ")));
        let mut command = self.place.session.command(words);
        let mut child = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let end = Instant::now() + Duration::from_millis(self.dice.below(120));
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        if !child.wait().unwrap().success() {
            self.place.killed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn any_shared(&mut self) -> String {
        let at = self.dice.index(SHARED);
        self.place.shared(at)
    }

    fn any_own(&mut self) -> Option<(String, String)> {
        let at = self.dice.index(self.images.len().max(1));
        self.images.iter().nth(at).map(|(name, content)| (name.clone(), content.clone()))
    }

    /// Returns a name that it may use for an image, and what shall be in that.
    fn next(&mut self) -> (String, String) {
        self.made += 1;
        let name = format!("own{}:{}", self.number, self.dice.below(OWN));
        // Some are longer than what an index holds.
        let times = if self.dice.below(2) == 0 { 1 } else { 400 };
        (name, format!("of {} the {}\n", self.number, self.made).repeat(times))
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.place.session.dir(&format!("{name}-{}", self.number))
    }

    fn pull(&mut self) {
        let name = self.any_shared();
        self.run(&["pull", "-q", &name]);
    }

    fn pull_killed(&mut self) {
        let name = self.any_shared();
        self.run_killed(&["pull", "-q", &name]);
    }

    fn remove_shared(&mut self) {
        let name = self.tags.pop().unwrap_or_else(|| self.any_shared());
        self.run_unless(&["rmi", &name], &["No such image"]);
    }

    fn tag_shared(&mut self) {
        let (from, to) = (self.any_shared(), format!("tag{}:{}", self.number, self.tags.len()));
        if self.run_unless(&["tag", &from, &to], &["No such image"]) {
            self.tags.push(to);
        }
    }

    fn source(&self, content: &str) -> String {
        let folder = self.folder("source");
        fs::write(folder.join("file"), content).unwrap();
        folder.to_string_lossy().into_owned()
    }

    fn import(&mut self) {
        let (name, content) = self.next();
        let source = self.source(&content);
        self.run(&["import", &source, &name]);
        self.images.insert(name, content);
    }

    fn import_killed(&mut self) {
        let (name, content) = self.next();
        let source = self.source(&content);
        self.run_killed(&["import", &source, &name]);
        self.look_at_killed(name, content);
    }

    fn commit_killed(&mut self) {
        let Some((from, _)) = self.any_own() else { return };
        let (name, content) = self.next();
        let container = format!("box{}", self.number);
        self.run_killed(&["create", "--name", &container, &from]);
        let source = self.source(&content);
        let file = format!("{source}/file");
        let into = format!("{container}:/file");
        if self.run_unless(&["cp", &file, &into], &["No such container"]) {
            self.run_killed(&["commit", &container, &name]);
            self.look_at_killed(name, content);
            self.run_killed(&["rm", &container]);
        }
        self.run_unless(&["rm", &container], &["No such container"]);
    }

    /// After a kill it is the old image or the new one.
    fn look_at_killed(&mut self, name: String, content: String) {
        let file = file_of(&name);
        let words = ["cat", &file];
        let output = self.try_run(&words);
        let before = self.images.get(&name);
        let is_old = before.is_some_and(|before| output.stdout == *before);
        let is_missing = before.is_none() && output.stderr.contains("No such object");
        let is_whole = output.code == 0 && (is_old || output.stdout == content);
        assert!(is_missing || is_whole, "{}", self.tell(&words, &output));
        if output.code == 0 {
            self.images.insert(name, output.stdout);
        }
    }

    fn commit(&mut self) {
        let Some((from, before)) = self.any_own() else { return };
        let (to, content) = self.next();
        let container = format!("box{}", self.number);
        let target = self.folder("mount");
        let target_text = target.to_string_lossy().into_owned();
        self.run(&["create", "--name", &container, &from]);
        self.run(&["mount", &container, &target_text]);
        assert_eq!(read(&target), before, "{from}");
        if self.dice.below(2) == 0 {
            fs::write(target.join("file"), &content).unwrap();
            // A live mount is committed, too.
            self.run(&["commit", &container, &to]);
        } else {
            fs::write(target.join("file"), "not yet").unwrap();
            self.run(&["snapshot", &container, "here"]);
            fs::write(target.join("file"), &content).unwrap();
            self.run(&["commit", &container, &to]);
        }
        assert_eq!(read(&target), content, "{to}");
        self.run(&["umount", &target_text]);
        self.run(&["rm", &container]);
        self.images.insert(to, content);
    }

    /// Saves an image and loads it again, when it has lost its name.
    fn copy(&mut self) {
        let Some((name, content)) = self.any_own() else { return };
        let archive = self.folder("archives").join("image.tar");
        let archive_text = archive.to_string_lossy().into_owned();
        self.run(&["save", "-o", &archive_text, &name]);
        self.run(&["rmi", &name]);
        self.run(&["load", "-q", "-i", &archive_text]);
        fs::remove_file(&archive).unwrap();
        self.images.insert(name, content);
    }

    fn push(&mut self) {
        let Some((name, content)) = self.any_own() else { return };
        let pushed = self.place.registry.image(&name);
        self.run(&["tag", &name, &pushed]);
        self.run(&["push", "-q", &pushed]);
        self.run(&["rmi", &pushed]);
        self.run(&["pull", "-q", &pushed]);
        assert_eq!(self.run(&["cat", &file_of(&pushed)]), content);
        self.run(&["rmi", &pushed]);
    }

    fn remove(&mut self) {
        let Some((name, _)) = self.any_own() else { return };
        self.run(&["rmi", &name]);
        self.images.remove(&name);
        self.run_unless(&["cat", &file_of(&name)], &["No such object"]);
    }

    fn prune(&mut self) {
        match self.dice.below(2) {
            0 => self.run(&["image", "prune", "-f"]),
            _ => self.run(&["image", "prune", "-a", "-f", "--filter", "label=shared=yes"]),
        };
    }

    fn look_around(&mut self) {
        self.run(&["images", "-a"]);
        self.run(&["ps", "-a"]);
        self.run(&["system", "df"]);
    }

    fn look_at_all(&mut self) {
        for (name, content) in self.images.clone() {
            assert_eq!(self.run(&["cat", &file_of(&name)]), content, "{name}");
        }
        for name in self.tags.clone() {
            // Somebody may have pruned it.
            let output = self.try_run(&["cat", &file_of(&name)]);
            let is_gone = output.code != 0 && output.stderr.contains("No such object");
            assert!(is_gone || output.stdout == "shared\n", "{}", self.tell(&["cat"], &output));
        }
    }
}

/// Names the file of an image that is looked at.
fn file_of(image: &str) -> String {
    format!("{image}:/file")
}

fn read(target: &Path) -> String {
    fs::read_to_string(target.join("file")).unwrap()
}

/// Returns the files of a folder of the store, also those further down.
fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(path) else { return found };
    for entry in entries.map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files_below(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[test]
fn many_processes_work_on_one_store_and_nothing_is_lost_or_left() {
    let random = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let seed = setting("STRATA_STRESS_SEED", u64::from(random));
    let place = Place::new(seed);
    let workers = setting("STRATA_STRESS_WORKERS", WORKERS);
    let steps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..workers {
            let (place, steps) = (&place, &steps);
            scope.spawn(move || {
                let dice = Dice(seed ^ (number << 32));
                let (images, tags, history) = (BTreeMap::new(), Vec::new(), Vec::new());
                let mut worker = Worker { place, number, dice, made: 0, images, tags, history };
                worker.work();
                steps.fetch_add(worker.history.len() as u64, Ordering::Relaxed);
            });
        }
    });
    let [steps, killed, slowest] =
        [&steps, &place.killed, &place.slowest].map(|count| count.load(Ordering::Relaxed));
    eprintln!("{steps} commands, {killed} killed; the slowest mount took {slowest} ms");
    let session = &place.session;
    // The images of the registry are all there again, whole, whatever has happened to them.
    for at in 0..SHARED {
        let name = place.shared(at);
        session.run(&["pull", "-q", &name]);
        let layer = &place.layers[at];
        let saved = session.path("saved.tar");
        session.run(&["save", "-o", saved.to_str().unwrap(), &name]);
        let archive = fs::read(&saved).unwrap();
        let diff_id = layer.diff_id.trim_start_matches("sha256:").as_bytes();
        assert!(archive.windows(diff_id.len()).any(|window| window == diff_id), "{name}");
    }
    let checked = session.try_run(&["fsck"]);
    assert_eq!(checked.code, 0, "{checked:?}");
    assert_eq!(session.run(&["ps", "-a", "-q"]), "");
    session.run(&["system", "prune", "-a", "-f"]);
    assert_eq!(session.run(&["images", "-a", "-q"]), "");
    let store = session.path("store");
    for folder in
        ["blobs", "chains", "layers", "leases", "objects", "refs", "staging", "trash", "pins"]
    {
        let left = files_below(&store.join(folder));
        let download = |path: &PathBuf| path.to_string_lossy().contains("staging/download-");
        let left: Vec<_> = left.into_iter().filter(|path| !download(path)).collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}
