//! What is shown, and what a key does to it. Nothing here knows of the terminal.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use parking_lot::Mutex;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::cli::error::told;
use crate::cli::explore::files::Files;
use crate::cli::explore::input::Input;
use crate::cli::explore::pager::{MOST_BYTES, Pager};
use crate::cli::explore::scroll::{Motion, Scroll};
use crate::cli::listing::escaped;
use crate::service::{Error, Event, Explorer, LevelFile, Progress, Replace, Result};

/// What comes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It goes on.
    Go,
    /// It ends, as it should.
    Quit,
    /// It ends, because somebody has enough.
    Interrupted,
}

/// Where the keys go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pane {
    Layers,
    Files,
}

/// What lies over the panes.
#[derive(Debug)]
pub(crate) enum Mode {
    Browse,
    Help,
    View(Pager),
    /// Names to look for are being typed.
    Filter(Input),
    /// Where to save a file is being typed.
    Save(Rc<LevelFile>, Input),
    /// Whether to replace a file by this one is being asked.
    Replace(Rc<LevelFile>, PathBuf),
}

/// What is said at the bottom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Done(String),
    Failed(String),
}

/// Keeps what the service warns of, until it is shown.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn event(&self, event: Event) {
        if let Event::Warning(text) = event {
            self.0.lock().push(text);
        }
    }
}

/// All that is shown.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) explorer: Explorer,
    pub(crate) layers: Scroll,
    pub(crate) files: Files,
    pub(crate) pane: Pane,
    pub(crate) mode: Mode,
    pub(crate) message: Option<Message>,
    warnings: std::sync::Arc<Warnings>,
    /// The rows of the files are not those of the level, or not all that are open.
    is_stale: bool,
}

impl Model {
    /// Returns what is shown first: all files, and the highest layer.
    pub(crate) fn new(explorer: Explorer, warnings: std::sync::Arc<Warnings>) -> Self {
        let cursor = explorer.levels().len().saturating_sub(1);
        Self {
            explorer,
            layers: Scroll { cursor, ..Scroll::default() },
            files: Files::default(),
            pane: Pane::Layers,
            mode: Mode::Browse,
            message: None,
            warnings,
            is_stale: true,
        }
    }

    /// Returns the chosen level, counted from 1; 0 of an image without layers.
    pub(crate) fn level(&self) -> usize {
        (self.layers.cursor + 1).min(self.explorer.levels().len())
    }

    /// Reads what is to be shown and is not known yet.
    pub(crate) fn prepare(&mut self) {
        if std::mem::take(&mut self.is_stale) {
            let level = self.level();
            let read = self.files.refresh(&mut self.explorer, level);
            self.tell(read);
        }
    }

    /// Does what a key says.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Flow {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Flow::Interrupted;
        }
        self.message = None;
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => return self.browse(key),
            Mode::Help => {}
            Mode::View(mut pager) => {
                if !matches!(key.code, KeyCode::Esc | KeyCode::Char('q' | 'v')) {
                    pager.press(key);
                    self.mode = Mode::View(pager);
                }
            }
            Mode::Filter(mut input) => match key.code {
                KeyCode::Esc => {}
                KeyCode::Enter => {
                    self.files.look_for(input.text());
                    self.is_stale = true;
                    self.pane = Pane::Files;
                }
                _ => {
                    input.press(key);
                    self.mode = Mode::Filter(input);
                }
            },
            Mode::Save(file, mut input) => match key.code {
                KeyCode::Esc => self.message = Some(Message::Done("nothing was saved".to_owned())),
                KeyCode::Enter => self.save(file, Path::new(&input.text()), Replace::Never),
                _ => {
                    input.press(key);
                    self.mode = Mode::Save(file, input);
                }
            },
            Mode::Replace(file, path) => match key.code {
                KeyCode::Char('y') => self.save(file, &path, Replace::File),
                _ => self.message = Some(Message::Done("nothing was saved".to_owned())),
            },
        }
        Flow::Go
    }

    fn browse(&mut self, key: KeyEvent) -> Flow {
        if let Some(motion) = Motion::of(key) {
            self.step(motion);
            return Flow::Go;
        }
        match key.code {
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Tab | KeyCode::BackTab => {
                self.pane = match self.pane {
                    Pane::Layers => Pane::Files,
                    Pane::Files => Pane::Layers,
                }
            }
            KeyCode::Char('a') => self.change_files(Files::turn_scope),
            KeyCode::Char('/') => {
                self.mode = Mode::Filter(Input::new(self.files.pattern().unwrap_or_default()));
            }
            KeyCode::Esc => self.change_files(|files| files.look_for(String::new())),
            KeyCode::Char('v') => self.view(),
            KeyCode::Char('s') => self.ask_where_to_save(),
            _ if self.pane == Pane::Files => self.browse_files(key),
            KeyCode::Right | KeyCode::Enter | KeyCode::Char('l') => self.pane = Pane::Files,
            _ => {}
        }
        Flow::Go
    }

    fn browse_files(&mut self, key: KeyEvent) {
        let is_file = self.files.selected().is_some_and(|row| !row.is_directory());
        match key.code {
            KeyCode::Enter if is_file => self.view(),
            KeyCode::Enter | KeyCode::Char(' ') => self.change_files(Files::turn),
            KeyCode::Right | KeyCode::Char('l') => self.change_files(Files::enter),
            KeyCode::Left | KeyCode::Char('h') => self.change_files(Files::leave),
            _ => {}
        }
    }

    fn step(&mut self, motion: Motion) {
        match self.pane {
            Pane::Files => {
                self.prepare();
                self.files.step(motion);
            }
            Pane::Layers => {
                self.layers.step(motion, self.explorer.levels().len());
                self.is_stale = true;
            }
        }
    }

    /// Changes what is shown of the files. What the screen shows is what the change is about, so it is
    /// read first.
    fn change_files(&mut self, change: impl FnOnce(&mut Files)) {
        self.prepare();
        change(&mut self.files);
        self.is_stale = true;
        self.prepare();
    }

    fn selected(&mut self) -> Option<Rc<LevelFile>> {
        self.prepare();
        self.files.selected().map(|row| Rc::clone(&row.file))
    }

    fn view(&mut self) {
        let Some(file) = self.selected() else { return };
        let level = self.level();
        match self.explorer.read(level, &file, MOST_BYTES as u64 + 1) {
            Ok(content) => self.mode = Mode::View(Pager::new(&file.file.path, content)),
            Err(error) => self.tell(Err(error)),
        }
    }

    fn ask_where_to_save(&mut self) {
        let Some(file) = self.selected() else { return };
        let input = Input::new(&format!("./{}", escaped(file.file.name())));
        self.mode = Mode::Save(file, input);
    }

    fn save(&mut self, file: Rc<LevelFile>, to: &Path, replace: Replace) {
        if to.as_os_str().is_empty() {
            self.message = Some(Message::Failed("no path was typed: nothing was saved".to_owned()));
            return;
        }
        let saved = self.explorer.save(self.level(), &file, to, replace);
        let warnings = std::mem::take(&mut *self.warnings.0.lock());
        match saved {
            Ok(copied) => {
                let to = copied.to.unwrap_or_else(|| to.display().to_string());
                let mut text = format!("saved {} as {to}", escaped(&file.file.path));
                for warning in warnings {
                    text.push_str(&format!("; {warning}"));
                }
                self.message = Some(Message::Done(text));
            }
            Err(Error::Exists(path)) if replace == Replace::Never && may_replace(&file, &path) => {
                self.mode = Mode::Replace(file, path);
            }
            Err(error) => self.tell(Err(error)),
        }
    }

    fn tell(&mut self, done: Result<()>) {
        if let Err(error) = done {
            self.message = Some(Message::Failed(escaped(told(&error).as_bytes())));
        }
    }
}

/// Tells whether one can stand in the place of the other: neither is a directory.
fn may_replace(file: &LevelFile, there: &Path) -> bool {
    file.file.kind != crate::service::Kind::Directory && !there.is_dir()
}
