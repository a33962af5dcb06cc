//! The model on the screen. A change has a letter besides its colour, so that nothing is lost without
//! colours.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use crate::cli::explore::files::{Row, Scope};
use crate::cli::explore::input::Input;
use crate::cli::explore::model::{Message, Mode, Model, Pane};
use crate::cli::explore::pager::Pager;
use crate::cli::format::size;
use crate::cli::listing::{self, escaped};
use crate::service::{DiffKind, Kind, Level};

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    Some,
    None,
}

/// With fewer columns only the pane with the keys is shown.
const BOTH_PANES: u16 = 60;
const MOST_LAYERS_COLUMNS: u16 = 50;
/// With fewer rows there is no room for the details of a layer.
const WITH_DETAILS: u16 = 14;
const DETAILS_ROWS: u16 = 7;

const HINT: &str = "q quit  ? keys  Tab pane  / filter  a only changes  v view  s save";

const HELP: [&str; 16] = [
    "Tab            the other pane",
    "Up Down k j    one line; PageUp, PageDown, Home and End (g, G) too",
    "Right l        open a directory; from the layers to the files",
    "Left h         close a directory, or go to the one above",
    "Enter Space    open or close a directory; Enter shows a file",
    "a              all files, or only what the layer changes",
    "/              show names with a part or a pattern (*.conf); Esc shows all",
    "v              show a file: text, or hexadecimal",
    "s              save a file or a directory on this machine",
    "q              quit; Ctrl-C too, with code 130",
    "",
    "A  the layer adds it        (green)",
    "C  the layer changes it     (yellow)",
    "D  the layer deletes it     (red)",
    "",
    "Any key goes back.",
];

impl Colours {
    /// Returns whether a person wants colours.
    pub(crate) fn of_the_environment() -> Self {
        match std::env::var_os("NO_COLOR") {
            Some(value) if !value.is_empty() => Self::None,
            _ => Self::Some,
        }
    }

    fn style(self, colour: Color) -> Style {
        match self {
            Self::Some => Style::new().fg(colour),
            Self::None => Style::new(),
        }
    }

    fn of_change(self, change: Option<DiffKind>) -> Style {
        match change {
            Some(DiffKind::Added) => self.style(Color::Green),
            Some(DiffKind::Changed) => self.style(Color::Yellow),
            Some(DiffKind::Deleted) => self.style(Color::Red),
            None => Style::new(),
        }
    }
}

/// Draws the model.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &mut Model, colours: Colours) {
    let [main, status] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    if let Mode::View(pager) = &mut model.mode {
        draw_pager(frame, main, pager);
    } else {
        draw_panes(frame, main, model, colours);
    }
    draw_status(frame, status, model, colours);
    if matches!(model.mode, Mode::Help) {
        draw_help(frame, main);
    }
}

fn draw_panes(frame: &mut Frame<'_>, area: Rect, model: &mut Model, colours: Colours) {
    if area.width < BOTH_PANES {
        match model.pane {
            Pane::Layers => draw_layers(frame, area, model),
            Pane::Files => draw_files(frame, area, model, colours),
        }
        return;
    }
    let columns = (area.width * 2 / 5).min(MOST_LAYERS_COLUMNS);
    let [left, right] =
        Layout::horizontal([Constraint::Length(columns), Constraint::Min(0)]).areas(area);
    draw_layers(frame, left, model);
    draw_files(frame, right, model, colours);
}

/// Returns the frame of a pane.
fn pane(title: String, has_keys: bool) -> Block<'static> {
    let style = if has_keys { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    Block::bordered().title(format!(" {title} ")).border_style(style)
}

/// Returns a line as it looks with the cursor.
fn with_cursor(line: Line<'_>, has_keys: bool) -> Line<'_> {
    let how = if has_keys { Modifier::REVERSED } else { Modifier::UNDERLINED };
    line.style(Style::new().add_modifier(how))
}

fn draw_layers(frame: &mut Frame<'_>, area: Rect, model: &mut Model) {
    let has_keys = model.pane == Pane::Layers;
    let details = if area.height < WITH_DETAILS { 0 } else { DETAILS_ROWS };
    let [list, details] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(details)]).areas(area);
    let block = pane(escaped(model.explorer.name().as_bytes()), has_keys);
    let inner = block.inner(list);
    let levels = model.explorer.levels();
    model.layers.fit(inner.height.into(), levels.len());
    let line = |(at, level): (usize, &Level)| {
        let by = escaped(level.created_by.as_bytes());
        let line = Line::raw(format!("{:>3} {:>7} {by}", at + 1, size(level.size)));
        if at == model.layers.cursor { with_cursor(line, has_keys) } else { line }
    };
    let shown = levels.iter().enumerate().skip(model.layers.top).take(inner.height.into());
    frame.render_widget(Paragraph::new(shown.map(line).collect::<Vec<_>>()).block(block), list);
    if let Some(level) = levels.get(model.layers.cursor) {
        let id = level.id.as_deref().unwrap_or("what was changed in the container");
        let text = format!("{id}\n{}", escaped(level.created_by.as_bytes()));
        let title = format!("Layer {}", model.level());
        let details_of = Paragraph::new(text).wrap(Wrap { trim: false });
        frame.render_widget(details_of.block(pane(title, false)), details);
    }
}

fn draw_files(frame: &mut Frame<'_>, area: Rect, model: &mut Model, colours: Colours) {
    let has_keys = model.pane == Pane::Files;
    let mut title = match model.files.scope() {
        Scope::All => format!("Files up to layer {}", model.level()),
        Scope::Changes => format!("Changes of layer {}", model.level()),
    };
    if let Some(pattern) = model.files.pattern() {
        title.push_str(&format!(", named {}", escaped(pattern.as_bytes())));
    }
    let mut block = pane(title, has_keys);
    if let Some(row) = model.files.selected() {
        block = block.title_bottom(format!(" {} ", escaped(row.path())));
    }
    let inner = block.inner(area);
    model.files.fit(inner.height.into());
    let (rows, scroll) = (model.files.rows(), model.files.scroll());
    let line = |(at, row): (usize, &Row)| {
        let line = file_line(row, inner.width, colours);
        if at == scroll.cursor { with_cursor(line, has_keys) } else { line }
    };
    let shown = rows.iter().enumerate().skip(scroll.top).take(inner.height.into());
    let mut lines: Vec<_> = shown.map(line).collect();
    if rows.is_empty() {
        lines.push(Line::raw("(nothing)"));
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Returns the line of a file: change, mode, owner, size, name. Where there is little room, the name
/// is what is left.
fn file_line(row: &Row, columns: u16, colours: Colours) -> Line<'static> {
    let file = &row.file.file;
    let letter = match row.file.change {
        Some(DiffKind::Added) => 'A',
        Some(DiffKind::Changed) => 'C',
        Some(DiffKind::Deleted) => 'D',
        None => ' ',
    };
    let mut text = format!("{letter} ");
    if columns >= 50 {
        text.push_str(&listing::mode(file));
    }
    if columns >= 60 {
        text.push_str(&format!(" {:>9}", format!("{}:{}", file.uid, file.gid)));
    }
    if columns >= 30 {
        let size = match file.kind {
            Kind::Regular => size(file.size),
            Kind::Character | Kind::Block => listing::size(file),
            _ => String::new(),
        };
        text.push_str(&format!(" {size:>7} "));
    }
    text.push_str(&"  ".repeat(row.depth));
    text.push_str(match (row.is_directory(), row.is_open) {
        (true, true) => "▾ ",
        (true, false) => "▸ ",
        (false, _) => "  ",
    });
    text.push_str(&escaped(file.name()));
    if let Some(target) = &file.target {
        text.push_str(&format!(" -> {}", escaped(target)));
    }
    Line::from(Span::styled(text, colours.of_change(row.file.change)))
}

fn draw_pager(frame: &mut Frame<'_>, area: Rect, pager: &mut Pager) {
    let block = pane(pager.title().to_owned(), true);
    let lines = pager.shown(block.inner(area).height.into());
    let block = block.title_bottom(format!(" {} of {} lines ", pager.bottom(), pager.len()));
    let lines: Vec<_> = lines.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_status(frame: &mut Frame<'_>, area: Rect, model: &Model, colours: Colours) {
    let text = match &model.mode {
        Mode::Filter(input) => return draw_input(frame, area, "Show names with: ", input),
        Mode::Save(file, input) => {
            let prompt = format!("Save {} as: ", escaped(file.file.name()));
            return draw_input(frame, area, &prompt, input);
        }
        Mode::Replace(_, path) => format!("{} exists. Replace it? (y/n)", path.display()),
        Mode::View(_) => "q back  Space and b pages  Left and Right sideways".to_owned(),
        Mode::Help => String::new(),
        Mode::Browse => match &model.message {
            Some(Message::Done(text)) => text.clone(),
            Some(Message::Failed(text)) => {
                let text = format!("Error: {text}");
                frame.render_widget(Line::styled(text, colours.style(Color::Red)), area);
                return;
            }
            None => HINT.to_owned(),
        },
    };
    frame.render_widget(Line::raw(text), area);
}

/// Draws a line that is typed; of one that is too long, what is around the cursor.
fn draw_input(frame: &mut Frame<'_>, area: Rect, prompt: &str, input: &Input) {
    let before = input.before_cursor();
    let room = usize::from(area.width).saturating_sub(Line::raw(prompt).width() + 1);
    let mut hidden = 0;
    let shown_before = |hidden| before.chars().skip(hidden).collect::<String>();
    while hidden < before.len() && Line::raw(shown_before(hidden)).width() > room {
        hidden += 1;
    }
    let at = Line::raw(format!("{prompt}{}", shown_before(hidden))).width();
    let text: String = input.text().chars().skip(hidden).collect();
    frame.render_widget(Line::raw(format!("{prompt}{text}")), area);
    let column = u16::try_from(at).unwrap_or(u16::MAX).min(area.width.saturating_sub(1));
    frame.set_cursor_position(Position::new(area.x.saturating_add(column), area.y));
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let columns = HELP.iter().map(|line| line.chars().count()).max().unwrap_or(0) + 4;
    let columns = u16::try_from(columns).unwrap_or(u16::MAX).min(area.width);
    let rows = u16::try_from(HELP.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let place = Rect {
        x: area.x + (area.width - columns) / 2,
        y: area.y + (area.height - rows) / 2,
        width: columns,
        height: rows,
    };
    let lines: Vec<_> = HELP.iter().map(|line| Line::raw(format!(" {line}"))).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(pane("Keys".to_owned(), true)), place);
}
