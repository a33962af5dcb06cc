//! Words of a Dockerfile instruction: splitting, quotes and `$variables`.
//!
//! The rules are those of the Dockerfile reference: single quotes keep everything, double quotes
//! keep all but variables, a backslash keeps the next character, `${name:-default}` and
//! `${name:+alternative}` choose. It must not know any instruction.

use std::iter::Peekable;
use std::str::Chars;

const ESCAPE: char = '\\';

/// Splits `text` at white space outside quotes. Quotes and escapes stay in the words.
pub(super) fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                words.push(std::mem::take(&mut word));
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == ESCAPE && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// Returns `word` without quotes and escapes, its variables replaced by their values in `env`.
///
/// `env` has entries `NAME=value`. A variable that is not set is empty.
///
/// # Errors
/// A quote or a brace is not closed, or a modifier is unknown; the text says which.
pub(super) fn expand(word: &str, env: &[String]) -> Result<String, String> {
    Expander { chars: word.chars().peekable(), env }.until(None)
}

struct Expander<'a> {
    chars: Peekable<Chars<'a>>,
    env: &'a [String],
}

impl Expander<'_> {
    /// Expands up to the character `end`, which is taken; up to the end of the text without one.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == end => return Ok(text),
                '\'' => text += &self.single_quoted()?,
                '"' => text += &self.double_quoted()?,
                '$' => text += &self.variable()?,
                // A lone backslash at the end stands for itself.
                ESCAPE => text.push(self.chars.next().unwrap_or(ESCAPE)),
                c => text.push(c),
            }
        }
        match end {
            None => Ok(text),
            Some(end) => Err(unclosed(end)),
        }
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some('\'') => return Ok(text),
                Some(c) => text.push(c),
                None => return Err(unclosed('\'')),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some('"') => return Ok(text),
                Some('$') => text += &self.variable()?,
                Some(ESCAPE) => text += &self.escaped_in_quotes(),
                Some(c) => text.push(c),
                None => return Err(unclosed('"')),
            }
        }
    }

    /// In double quotes a backslash escapes only what would have a meaning there.
    fn escaped_in_quotes(&mut self) -> String {
        match self.chars.next_if(|c| ['"', '$', ESCAPE].contains(c)) {
            Some(c) => c.to_string(),
            None => ESCAPE.to_string(),
        }
    }

    /// Expands what follows a `$`.
    fn variable(&mut self) -> Result<String, String> {
        if self.chars.next_if_eq(&'{').is_some() {
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(self.value(&name).unwrap_or_default())
    }

    /// Expands what follows a `${`.
    fn braced(&mut self) -> Result<String, String> {
        let name = self.name();
        let value = self.value(&name);
        let modifier = match self.chars.next() {
            _ if name.is_empty() => return Err("bad substitution: a variable has no name".into()),
            Some('}') => return Ok(value.unwrap_or_default()),
            Some(':') => self.chars.next(),
            Some(_) => return Err(format!("unsupported modifier after ${{{name}")),
            None => return Err(unclosed('}')),
        };
        let word = self.until(Some('}'))?;
        let is_set = value.as_ref().is_some_and(|value| !value.is_empty());
        match modifier {
            Some('-') => Ok(value.filter(|value| !value.is_empty()).unwrap_or(word)),
            Some('+') => Ok(if is_set { word } else { String::new() }),
            _ => Err(format!("unsupported modifier after ${{{name}:")),
        }
    }

    /// Takes a variable's name: letters, digits and underscores, or digits alone.
    fn name(&mut self) -> String {
        let is_number = self.chars.peek().is_some_and(char::is_ascii_digit);
        let belongs =
            |c: &char| c.is_ascii_digit() || (!is_number && (c.is_ascii_alphabetic() || *c == '_'));
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(belongs) {
            name.push(c);
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        let value = |entry: &String| match entry.split_once('=') {
            Some((key, value)) if key == name => Some(value.to_owned()),
            _ => None,
        };
        self.env.iter().find_map(value)
    }
}

fn unclosed(quote: char) -> String {
    format!("unexpected end of statement while looking for matching {quote}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_at_white_space_outside_quotes() {
        let table: [(&str, &[&str]); 6] = [
            ("", &[]),
            ("  a  b\tc ", &["a", "b", "c"]),
            ("a=\"b c\" d='e f'", &["a=\"b c\"", "d='e f'"]),
            (r"a=b\ c d", &[r"a=b\ c", "d"]),
            (r#"a="b\" c" d"#, &[r#"a="b\" c""#, "d"]),
            (r"a='b\' c", &[r"a='b\'", "c"]),
        ];
        for (text, expected) in table {
            assert_eq!(split_words(text), expected, "{text}");
        }
    }

    #[test]
    fn variables_quotes_and_escapes_are_expanded_as_in_a_dockerfile() {
        let env = ["A=1".to_owned(), "EMPTY=".to_owned(), "PATH=/bin".to_owned()];
        let table = [
            ("", ""),
            ("plain", "plain"),
            ("$A", "1"),
            ("${A}x$A.y", "1x1.y"),
            ("/opt:$PATH", "/opt:/bin"),
            ("$NONE|${NONE}", "|"),
            ("${NONE:-d $A}", "d 1"),
            ("${EMPTY:-d}", "d"),
            ("${A:-d}", "1"),
            ("${A:+alt}${EMPTY:+alt}", "alt"),
            ("'$A'", "$A"),
            ("\"$A b\"", "1 b"),
            (r#""a\"b\$A\\\n""#, r#"a"b$A\\n"#),
            (r"a\ b\$A\'", "a b$A'"),
            (r"end\", r"end\"),
            ("$", "$"),
            ("$-x", "$-x"),
            ("a'b'\"c\"", "abc"),
        ];
        for (word, expected) in table {
            assert_eq!(expand(word, &env).as_deref(), Ok(expected), "{word}");
        }
    }

    #[test]
    fn what_is_not_closed_is_an_error() {
        for word in ["'a", "\"a", "${A", "${A:-x", "${A:?x}", "${A%x}", "${}", "${A:"] {
            assert!(expand(word, &[]).is_err(), "{word}");
        }
    }
}
