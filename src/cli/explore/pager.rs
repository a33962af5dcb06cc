//! A file on the screen: its lines, or in hexadecimal what is no text.

use std::ops::Range;

use ratatui::crossterm::event::{KeyCode, KeyEvent};

use crate::cli::explore::scroll::Motion;
use crate::cli::format::size;
use crate::cli::listing::escaped;

/// How much of a file is shown.
pub(crate) const MOST_BYTES: usize = 4_000_000;
/// A file with a zero in its first bytes, so many, is no text, as git has it.
const LOOKED_AT: usize = 8000;
/// Bytes in a line of hexadecimal.
const LINE_BYTES: usize = 16;
const TAB_COLUMNS: usize = 8;
/// Columns that a key moves to the side.
const SIDE_STEP: usize = 8;

/// A file that is looked at.
#[derive(Debug)]
pub(crate) struct Pager {
    title: String,
    content: Vec<u8>,
    /// Where the lines are; none of a file that is no text.
    lines: Option<Vec<Range<usize>>>,
    top: usize,
    left: usize,
    height: usize,
}

impl Pager {
    /// Returns the view of a file with this content, or with its first bytes, more than are shown.
    pub(crate) fn new(path: &[u8], mut content: Vec<u8>) -> Self {
        let mut title = escaped(path);
        if content.len() > MOST_BYTES {
            content.truncate(MOST_BYTES);
            title.push_str(&format!(" (the first {})", size(MOST_BYTES as u64)));
        }
        let is_text = !content.iter().take(LOOKED_AT).any(|byte| *byte == 0);
        let lines = is_text.then(|| lines(&content));
        Self { title, content, lines, top: 0, left: 0, height: 0 }
    }

    /// Returns what the file is called.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// Returns how many lines there are.
    pub(crate) fn len(&self) -> usize {
        match &self.lines {
            Some(lines) => lines.len(),
            None => self.content.len().div_ceil(LINE_BYTES),
        }
    }

    /// Returns the number of the last line that is shown, counted from 1.
    pub(crate) fn bottom(&self) -> usize {
        (self.top + self.height).min(self.len())
    }

    /// Returns the lines that fit on so many rows, cut at the left.
    pub(crate) fn shown(&mut self, height: usize) -> Vec<String> {
        self.height = height;
        self.top = self.top.min(self.last_top());
        let lines = self.top..(self.top + height).min(self.len());
        lines.map(|number| self.line(number).chars().skip(self.left).collect()).collect()
    }

    /// Moves as a key says.
    pub(crate) fn press(&mut self, key: KeyEvent) {
        let motion = match key.code {
            KeyCode::Char(' ') => Some(Motion::PageDown),
            KeyCode::Char('b') => Some(Motion::PageUp),
            KeyCode::Left | KeyCode::Char('h') => {
                self.left = self.left.saturating_sub(SIDE_STEP);
                None
            }
            KeyCode::Right | KeyCode::Char('l') => {
                self.left += SIDE_STEP;
                None
            }
            _ => Motion::of(key),
        };
        if let Some(motion) = motion {
            self.top = motion.from(self.top, self.height, self.last_top() + 1);
        }
    }

    /// Returns the first line when the last one is at the bottom.
    fn last_top(&self) -> usize {
        self.len().saturating_sub(self.height.max(1))
    }

    fn line(&self, number: usize) -> String {
        match &self.lines {
            Some(lines) => {
                let range = lines.get(number).cloned().unwrap_or_default();
                text_line(self.content.get(range).unwrap_or_default())
            }
            None => {
                let start = number * LINE_BYTES;
                let end = (start + LINE_BYTES).min(self.content.len());
                hex_line(start, self.content.get(start..end).unwrap_or_default())
            }
        }
    }
}

/// Returns where the lines of a text are, without their ends.
fn lines(content: &[u8]) -> Vec<Range<usize>> {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        lines.push(start..start + text.len());
        start += line.len();
    }
    lines
}

fn text_line(line: &[u8]) -> String {
    let mut text = String::new();
    for (number, part) in line.split(|byte| *byte == b'\t').enumerate() {
        if number > 0 {
            let column = text.chars().count();
            text.push_str(&" ".repeat(TAB_COLUMNS - column % TAB_COLUMNS));
        }
        text.push_str(&escaped(part));
    }
    text
}

fn hex_line(offset: usize, bytes: &[u8]) -> String {
    let mut text = format!("{offset:08x} ");
    for at in 0..LINE_BYTES {
        if at % 8 == 0 {
            text.push(' ');
        }
        match bytes.get(at) {
            Some(byte) => text.push_str(&format!("{byte:02x} ")),
            None => text.push_str("   "),
        }
    }
    let printable = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    };
    text.push_str(" |");
    text.extend(bytes.iter().map(printable));
    text.push('|');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_by_lines() {
        let text = b"one\n\ttwo\r\n\xfflast".to_vec();
        let mut pager = Pager::new(b"/etc/x", text);
        assert_eq!(pager.shown(9), ["one", "        two\\r", "\\xfflast"]);
        pager.press(KeyCode::Right.into());
        assert_eq!(pager.shown(9), ["", "two\\r", ""]);
        assert_eq!((pager.title(), pager.bottom()), ("/etc/x", 3));
        let mut empty = Pager::new(b"/e", Vec::new());
        empty.press(KeyCode::End.into());
        assert_eq!((empty.shown(3).len(), empty.bottom()), (0, 0));
    }

    #[test]
    fn what_is_no_text_is_shown_in_hexadecimal() {
        let mut pager = Pager::new(b"/bin/x", b"\x7fELF\0 and so on, more than a line".to_vec());
        let expected = [
            "00000000  7f 45 4c 46 00 20 61 6e  64 20 73 6f 20 6f 6e 2c  |.ELF. and so on,|",
            "00000010  20 6d 6f 72 65 20 74 68  61 6e 20 61 20 6c 69 6e  | more than a lin|",
            "00000020  65                                                |e|",
        ];
        assert_eq!(pager.shown(5), expected);
        let large = Pager::new(b"/bin/y", vec![0; MOST_BYTES + 1]);
        assert_eq!((large.title(), large.len()), ("/bin/y (the first 4MB)", MOST_BYTES / 16));
    }

    #[test]
    fn the_last_line_stays_at_the_bottom() {
        let text: Vec<u8> = (0..10).flat_map(|number| format!("{number}\n").into_bytes()).collect();
        let mut pager = Pager::new(b"/x", text);
        assert_eq!(pager.shown(4), ["0", "1", "2", "3"]);
        for (code, top) in [
            (KeyCode::Char(' '), "3"),
            (KeyCode::Char('j'), "4"),
            (KeyCode::End, "6"),
            (KeyCode::Down, "6"),
            (KeyCode::Char('b'), "3"),
            (KeyCode::Char('g'), "0"),
        ] {
            pager.press(code.into());
            assert_eq!(pager.shown(4)[0], top, "{code:?}");
        }
    }
}
