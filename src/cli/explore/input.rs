//! A line that is typed at the bottom of the screen.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A line, and where the next letter goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    before: Vec<char>,
    after: Vec<char>,
}

impl Input {
    /// Returns a line that has this text already.
    pub(crate) fn new(text: &str) -> Self {
        Self { before: text.chars().collect(), after: Vec::new() }
    }

    /// Returns the whole line.
    pub(crate) fn text(&self) -> String {
        self.before.iter().chain(&self.after).collect()
    }

    /// Returns what is before the cursor.
    pub(crate) fn before_cursor(&self) -> String {
        self.before.iter().collect()
    }

    /// Changes the line as a key says.
    pub(crate) fn press(&mut self, key: KeyEvent) {
        match key.code {
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                self.before.clear();
            }
            KeyCode::Char(letter)
                if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
            {
                self.before.push(letter);
            }
            KeyCode::Backspace => drop(self.before.pop()),
            KeyCode::Delete if !self.after.is_empty() => drop(self.after.remove(0)),
            KeyCode::Left => self.after.splice(0..0, self.before.pop()).for_each(drop),
            KeyCode::Right if !self.after.is_empty() => self.before.push(self.after.remove(0)),
            KeyCode::Home => self.after.splice(0..0, self.before.drain(..)).for_each(drop),
            KeyCode::End => self.before.append(&mut self.after),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_go_where_the_cursor_is() {
        let mut input = Input::new("./motd");
        for code in [
            KeyCode::Home,
            KeyCode::Delete,
            KeyCode::Char('ä'),
            KeyCode::Left,
            KeyCode::Left,
            KeyCode::Char('é'),
            KeyCode::End,
            KeyCode::Backspace,
            KeyCode::Right,
            KeyCode::Delete,
        ] {
            input.press(code.into());
        }
        assert_eq!(input.text(), "éä/mot");
        input.press(KeyCode::Left.into());
        assert_eq!(input.before_cursor(), "éä/mo");
        input.press(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        assert_eq!(input.text(), "t");
    }
}
