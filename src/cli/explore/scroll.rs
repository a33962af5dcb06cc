//! Where a person is in a list that is longer than the screen.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A step through a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Motion {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

impl Motion {
    /// Returns the step that a key means.
    pub(crate) fn of(key: KeyEvent) -> Option<Self> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        Some(match key.code {
            KeyCode::Char('b') if control => Self::PageUp,
            KeyCode::Char('f') if control => Self::PageDown,
            _ if control => return None,
            KeyCode::Up | KeyCode::Char('k') => Self::Up,
            KeyCode::Down | KeyCode::Char('j') => Self::Down,
            KeyCode::PageUp => Self::PageUp,
            KeyCode::PageDown => Self::PageDown,
            KeyCode::Home | KeyCode::Char('g') => Self::First,
            KeyCode::End | KeyCode::Char('G') => Self::Last,
            _ => return None,
        })
    }

    /// Returns where the step leads in a list of so many lines.
    pub(crate) fn from(self, at: usize, page: usize, len: usize) -> usize {
        let page = page.saturating_sub(1).max(1);
        let to = match self {
            Self::Up => at.saturating_sub(1),
            Self::Down => at.saturating_add(1),
            Self::PageUp => at.saturating_sub(page),
            Self::PageDown => at.saturating_add(page),
            Self::First => 0,
            Self::Last => usize::MAX,
        };
        to.min(len.saturating_sub(1))
    }
}

/// A cursor in a list, and the part of the list that is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scroll {
    /// The line with the cursor.
    pub(crate) cursor: usize,
    /// The first line that is shown.
    pub(crate) top: usize,
    /// How many lines are shown.
    pub(crate) height: usize,
}

impl Scroll {
    /// Moves the cursor in a list of so many lines.
    pub(crate) fn step(&mut self, motion: Motion, len: usize) {
        self.cursor = motion.from(self.cursor, self.height, len);
    }

    /// Shows so many lines of a list, the one with the cursor among them.
    pub(crate) fn fit(&mut self, height: usize, len: usize) {
        self.height = height;
        self.cursor = self.cursor.min(len.saturating_sub(1));
        let least = (self.cursor + 1).saturating_sub(height);
        let most = self.cursor.min(len.saturating_sub(height).max(least));
        self.top = self.top.clamp(least.min(most), most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_stays_in_the_list_and_on_the_screen() {
        let mut scroll = Scroll::default();
        for (motion, cursor, top) in [
            (Motion::Up, 0, 0),
            (Motion::Down, 1, 0),
            (Motion::PageDown, 4, 1),
            (Motion::PageDown, 7, 4),
            (Motion::Last, 9, 6),
            (Motion::Down, 9, 6),
            (Motion::Up, 8, 6),
            (Motion::PageUp, 5, 5),
            (Motion::First, 0, 0),
        ] {
            scroll.fit(4, 10);
            scroll.step(motion, 10);
            scroll.fit(4, 10);
            assert_eq!((scroll.cursor, scroll.top), (cursor, top), "{motion:?}");
        }
    }

    #[test]
    fn a_list_may_become_short_and_a_screen_small() {
        let mut scroll = Scroll { cursor: 9, top: 6, height: 4 };
        scroll.fit(4, 2);
        assert_eq!((scroll.cursor, scroll.top), (1, 0));
        for (height, len) in [(0, 0), (0, 5), (1, 1), (7, 0)] {
            scroll.fit(height, len);
            scroll.step(Motion::Last, len);
            scroll.fit(height, len);
            assert!(scroll.cursor < len.max(1) && scroll.top <= scroll.cursor, "{scroll:?}");
        }
    }
}
