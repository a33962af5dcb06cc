//! Keys pressed on an image of two layers, and the screens that this makes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::draw::{Colours, draw};
use super::model::{Flow, Message, Mode, Model, Warnings};
use crate::service::{AppendRequest, ImportRequest, ImportSource, Quiet, RegistryOptions, Strata};

/// What is shown of the image `demo:1`, and a folder to work in.
struct World {
    folder: tempfile::TempDir,
    model: Model,
    _store: Arc<tempfile::TempDir>,
}

/// The store with the image, which the tests that run at the same time share.
static STORE: Mutex<Weak<tempfile::TempDir>> = Mutex::new(Weak::new());

/// Packs a folder in which a file named `.wh.x` deletes `x`.
fn tar_of(folder: &Path, to: &Path) {
    let done = Command::new("tar").arg("-cf").arg(to).arg("-C").arg(folder).arg(".").status();
    assert!(done.expect("there is tar").success());
}

fn write(root: &Path, files: &[(&[u8], &[u8])]) {
    for (path, content) in files {
        let path = root.join(std::ffi::OsStr::from_bytes(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn open(folder: &Path) -> Strata {
    let root = folder.join("store");
    Strata::open(&root, RegistryOptions::default(), Arc::new(Quiet)).unwrap()
}

/// Returns the folder that the store is in.
fn store() -> Arc<tempfile::TempDir> {
    let mut shared = STORE.lock();
    let folder = shared.upgrade().unwrap_or_else(|| {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        Arc::new(folder)
    });
    *shared = Arc::downgrade(&folder);
    folder
}

/// Makes a store with the image.
fn fill(folder: &Path) {
    let (base, upper) = (folder.join("base"), folder.join("upper"));
    write(
        &base,
        &[
            (b"bin/tool", b"\x7fELF\0\0"),
            (b"etc/conf.d/deep", b"deep\n"),
            (b"etc/gone", b"was here\n"),
            (b"etc/motd", b"hello\n"),
            (b"odd/\x1b[31mred", b""),
            (b"odd/\xff", b""),
            (b"old/file", b"x"),
        ],
    );
    write(
        &upper,
        &[
            (b"etc/motd", b"hello again\n"),
            (b"etc/.wh.gone", b""),
            (b"opt/new", b"new\n"),
            (b".wh.old", b""),
        ],
    );
    let tar = folder.join("upper.tar");
    tar_of(&upper, &tar);
    let strata = open(folder);
    let import = ImportRequest {
        source: ImportSource::Path(base),
        reference: Some("demo:0".parse().unwrap()),
        message: Some("a small\ttree".to_owned()),
        changes: Vec::new(),
        platform: None,
    };
    strata.import(&import).unwrap();
    let append = AppendRequest {
        image: "demo:0".to_owned(),
        source: ImportSource::Path(tar),
        to: Vec::new(),
        reference: Some("demo:1".parse().unwrap()),
        message: Some("changes".to_owned()),
    };
    strata.append(&append).unwrap();
}

impl World {
    fn new() -> Self {
        let store = store();
        let explorer = open(store.path()).explore("demo:1").unwrap();
        let model = Model::new(explorer, Arc::new(Warnings::default()));
        Self { folder: tempfile::tempdir().unwrap(), model, _store: store }
    }

    fn press(&mut self, keys: &[KeyCode]) {
        for key in keys {
            assert_eq!(self.model.press((*key).into()), Flow::Go, "{key:?}");
        }
    }

    /// Presses the keys of letters, and then Enter.
    fn type_line(&mut self, text: &str) {
        text.chars().for_each(|letter| self.press(&[KeyCode::Char(letter)]));
        self.press(&[KeyCode::Enter]);
    }

    /// Empties the line that is typed, and types another one.
    fn type_instead(&mut self, text: &str) {
        self.model.press(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        self.type_line(text);
    }

    fn buffer(&mut self, columns: u16, rows: u16, colours: Colours) -> Buffer {
        self.model.prepare();
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| draw(frame, &mut self.model, colours)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn screen(&mut self, columns: u16, rows: u16) -> Vec<String> {
        let buffer = self.buffer(columns, rows, Colours::None);
        let rows = buffer.content.chunks(columns.into());
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect()).collect()
    }

    /// Returns the rows of the files, with a `>` where the cursor is.
    fn files(&mut self) -> Vec<String> {
        let lines = self.screen(78, 20);
        let cursor = self.model.files.scroll().cursor;
        let inside = lines[1..18].iter().map(|line| {
            let inside: String = line.chars().skip(32).take(45).collect();
            inside.split_whitespace().collect::<Vec<_>>().join(" ")
        });
        let rows = inside.take_while(|line| !line.is_empty()).enumerate();
        rows.map(|(at, line)| if at == cursor { format!(">{line}") } else { line }).collect()
    }

    fn said(&self) -> String {
        match &self.model.message {
            Some(Message::Done(text) | Message::Failed(text)) => text.clone(),
            None => String::new(),
        }
    }
}

use KeyCode::{Char, Down, Enter, Esc, Left, Right, Tab, Up};

#[test]
fn the_highest_layer_is_shown_first_and_its_changes_have_letters() {
    let mut world = World::new();
    let screen = world.screen(78, 16);
    assert!(screen[0].starts_with("┌ demo:1 ─"), "{screen:#?}");
    assert!(screen[0].contains("┌ Files up to layer 2 ─"), "{screen:#?}");
    assert!(screen[1].starts_with("│  1     27B a small\\ttree    │"), "{screen:#?}");
    assert!(screen[2].starts_with("│  2     16B append /"), "{screen:#?}");
    assert!(screen[8].starts_with("┌ Layer 2 ─"), "{screen:#?}");
    assert!(screen[9].starts_with("│sha256:"), "{screen:#?}");
    assert!(screen[15].starts_with("q quit"), "{screen:#?}");
    assert_eq!(world.files(), [">▸ bin", "C ▸ etc", "▸ odd", "D ▸ old", "A ▸ opt"]);
    world.press(&[Up]);
    assert_eq!(world.files(), [">A ▸ bin", "A ▸ etc", "A ▸ odd", "A ▸ old"]);
}

#[test]
fn directories_are_opened_closed_and_left() {
    let mut world = World::new();
    world.press(&[Right, Down, Enter]);
    let opened =
        ["▸ bin", ">C ▾ etc", "▸ conf.d", "D 9B gone", "C 12B motd", "▸ odd", "D ▸ old", "A ▸ opt"];
    assert_eq!(world.files(), opened);
    // Right once more goes in, Left goes back, and closes.
    world.press(&[Right, Right]);
    assert_eq!(world.files()[2..4], [">▾ conf.d", "5B deep"]);
    world.press(&[Right, Left, Left, Left, Left]);
    assert_eq!(world.files()[..3], ["▸ bin", ">C ▸ etc", "▸ odd"]);
    // What was deleted can be looked into.
    world.press(&[Down, Down, Char(' ')]);
    assert_eq!(world.files()[3..5], [">D ▾ old", "D 1B file"]);
}

#[test]
fn the_cursor_stays_on_its_file_when_the_layer_changes() {
    let mut world = World::new();
    world.press(&[Tab, Down, Enter, Down, Down]);
    assert_eq!(world.files()[3], ">D 9B gone");
    world.press(&[Tab, Up]);
    assert_eq!(world.files()[3], ">A 9B gone");
    world.press(&[Tab, Char('G'), Tab, Down]);
    assert_eq!(world.files().last().unwrap(), "A ▸ opt");
    assert_eq!(world.files()[6], ">D ▸ old");
}

#[test]
fn only_changes_are_shown_on_demand() {
    let mut world = World::new();
    world.press(&[Char('a'), Tab, Enter]);
    assert_eq!(world.files(), [">C ▾ etc", "D 9B gone", "C 12B motd", "D ▸ old", "A ▸ opt"]);
    assert!(world.screen(78, 16)[0].contains(" Changes of layer 2 "));
    world.press(&[Char('a')]);
    assert_eq!(world.files()[..3], ["▸ bin", ">C ▾ etc", "▸ conf.d"]);
}

#[test]
fn names_are_looked_for_in_all_directories() {
    let mut world = World::new();
    world.press(&[Char('/')]);
    world.type_line("DEEP");
    assert_eq!(world.files(), ["C ▾ etc", "▾ conf.d", ">5B deep"]);
    assert!(world.screen(78, 16)[0].contains("named DEEP"));
    // A directory that was found shows all that is in it.
    world.press(&[Char('/')]);
    world.type_instead("*.d");
    assert_eq!(world.files(), ["C ▾ etc", ">▾ conf.d", "5B deep"]);
    world.press(&[Char('/')]);
    world.type_instead("nothing at all");
    assert_eq!(world.files(), [">(nothing)"]);
    world.press(&[Esc]);
    assert_eq!(world.files().len(), 9);
    // A line that is left changes nothing.
    world.press(&[Char('/'), Char('x'), Esc]);
    assert_eq!(world.files().len(), 9);
}

#[test]
fn names_are_looked_for_on_every_layer() {
    let mut world = World::new();
    world.press(&[Char('/')]);
    world.type_line("gone");
    assert_eq!(world.files(), ["C ▾ etc", ">D 9B gone"]);
    world.press(&[Tab, Up]);
    assert_eq!(world.files(), ["A ▾ etc", ">A 9B gone"]);
    world.press(&[Char('/')]);
    world.type_instead("tool");
    assert_eq!(world.files(), ["A ▾ bin", ">A 6B tool"]);
    world.press(&[Tab, Down, Char('a')]);
    assert_eq!(world.files(), [">(nothing)"]);
}

#[test]
fn files_are_shown_as_text_or_in_hexadecimal() {
    let mut world = World::new();
    world.press(&[Tab, Enter, Down, Char('v')]);
    let screen = world.screen(100, 10);
    assert!(screen[0].starts_with("┌ /bin/tool ─"), "{screen:#?}");
    assert!(screen[1].starts_with("│00000000  7f 45 4c 46 00 00 "), "{screen:#?}");
    assert!(screen[8].contains(" 1 of 1 lines "), "{screen:#?}");
    world.press(&[Char('q'), Char('/')]);
    world.type_line("gone");
    world.press(&[Enter]);
    assert!(world.screen(100, 10)[1].starts_with("│was here "));
    world.press(&[Esc, Left, Char('v')]);
    assert_eq!(
        world.said(),
        "/etc is a directory; list it with 'strata ls', or copy it with 'strata cp'"
    );
}

#[test]
fn files_are_saved_and_replace_nothing_unasked() {
    let mut world = World::new();
    let to = world.folder.path().join("out");
    fs::create_dir(&to).unwrap();
    let motd = to.join("motd");
    world.press(&[Char('/')]);
    world.type_line("motd");
    world.press(&[Char('s')]);
    assert!(matches!(&world.model.mode, Mode::Save(_, input) if input.text() == "./motd"));
    world.type_instead(motd.to_str().unwrap());
    assert_eq!(world.said(), format!("saved /etc/motd as {}", motd.display()));
    assert_eq!(fs::read(&motd).unwrap(), b"hello again\n");
    // Again: it asks, and what is no yes is a no.
    fs::write(&motd, "mine").unwrap();
    for (answer, content) in [(Char('n'), "mine"), (Enter, "mine"), (Char('y'), "hello again\n")] {
        world.press(&[Char('s')]);
        world.type_instead(to.to_str().unwrap());
        assert!(matches!(&world.model.mode, Mode::Replace(_, path) if *path == motd));
        world.press(&[answer]);
        assert_eq!(fs::read_to_string(&motd).unwrap(), content, "{answer:?}: {}", world.said());
    }
    // The directory: there is one of its name, which is kept.
    world.press(&[Left, Char('s')]);
    world.type_instead(to.to_str().unwrap());
    assert_eq!(fs::read(to.join("etc/motd")).unwrap(), b"hello again\n");
    assert!(!to.join("etc/gone").exists());
    fs::write(to.join("etc/mine"), "").unwrap();
    world.press(&[Char('s')]);
    world.type_instead(to.to_str().unwrap());
    assert_eq!(world.said(), format!("{} exists: choose another path", to.join("etc").display()));
    assert!(to.join("etc/mine").exists());
}

#[test]
fn what_a_layer_deletes_is_saved_from_the_one_below() {
    let mut world = World::new();
    let to = world.folder.path().join("gone");
    world.press(&[Char('/')]);
    world.type_line("gone");
    world.press(&[Char('s')]);
    world.type_instead(to.to_str().unwrap());
    assert_eq!(fs::read(&to).unwrap(), b"was here\n", "{}", world.said());
    world.press(&[Char('s')]);
    world.type_instead("/nowhere/at/all");
    assert_eq!(world.said(), "invalid output path: directory \"/nowhere/at\" does not exist");
    world.press(&[Char('s')]);
    world.type_instead("");
    assert_eq!(world.said(), "no path was typed: nothing was saved");
}

#[test]
fn names_that_would_change_the_screen_are_escaped() {
    let mut world = World::new();
    world.press(&[Tab, Down, Down, Enter]);
    assert_eq!(world.files()[2..5], [">▾ odd", "0B \\u{1b}[31mred", "0B \\xff"]);
}

#[test]
fn a_screen_of_any_size_is_drawn() {
    let mut world = World::new();
    let modes: [&[KeyCode]; 6] = [
        &[],
        &[Tab, Down, Enter],
        &[Char('?')],
        &[Char('x'), Char('/'), Char('m')],
        &[Enter, Char('s')],
        &[Esc, Char('v')],
    ];
    for keys in modes {
        world.press(keys);
        for columns in [1, 2, 3, 7, 12, 30, 59, 60, 200] {
            for rows in [1, 2, 3, 4, 13, 14, 40] {
                assert_eq!(world.screen(columns, rows).len(), usize::from(rows));
            }
        }
    }
}

#[test]
fn a_narrow_screen_shows_the_pane_with_the_keys() {
    let mut world = World::new();
    assert!(world.screen(40, 10)[0].starts_with("┌ demo:1 ─"));
    world.press(&[Tab]);
    let screen = world.screen(40, 10);
    assert!(screen[0].starts_with("┌ Files up to layer 2 ─"), "{screen:#?}");
    assert!(screen[2].starts_with("│C          ▸ etc "), "{screen:#?}");
}

#[test]
fn colours_are_only_an_addition() {
    let mut world = World::new();
    let coloured =
        |buffer: &Buffer| buffer.content.iter().filter(|cell| cell.fg != Color::Reset).count();
    let plain = world.buffer(78, 16, Colours::None);
    let bright = world.buffer(78, 16, Colours::Some);
    assert_eq!(coloured(&plain), 0);
    assert!(coloured(&bright) > 0);
    let text = |buffer: &Buffer| -> String {
        buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect()
    };
    assert_eq!(text(&plain), text(&bright));
}

#[test]
fn there_are_two_ways_out() {
    let mut world = World::new();
    assert_eq!(world.model.press(Char('q').into()), Flow::Quit);
    let interrupt = KeyEvent::new(Char('c'), KeyModifiers::CONTROL);
    for keys in [&[][..], &[Char('?')], &[Char('/')], &[Esc, Char('s')]] {
        world.press(keys);
        assert_eq!(world.model.press(interrupt), Flow::Interrupted, "{keys:?}");
    }
}
