//! Whether every `{{if}}`, `{{range}}`, `{{with}}`, `{{define}}` and `{{block}}` of a template has its
//! `{{end}}`, which the engine does not check.

/// Checks the blocks of a template whose actions are closed.
///
/// # Errors
/// What is wrong, in Go's words.
pub(crate) fn check_blocks(text: &str) -> Result<(), String> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(open) = text[at..].find("{{").map(|found| at + found) {
        let inside = &text[open + 2..];
        let len = action_len(inside);
        let line = text[..open].matches('\n').count() + 1;
        let action = inside[..len].trim_start_matches("- ").trim();
        let word = action.split([' ', '\t', '\n', '\r', '(']).next().unwrap_or_default();
        let wrong = |what: &str| Err(format!("template: :{line}: {what}"));
        match word {
            "" => return wrong("missing value for command"),
            "if" | "range" | "with" if word == action => {
                return wrong(&format!("missing value for {word}"));
            }
            "if" | "range" | "with" | "define" | "block" => depth += 1,
            "end" if depth == 0 => return wrong("unexpected {{end}}"),
            "end" => depth -= 1,
            "else" if depth == 0 => return wrong("unexpected {{else}}"),
            _ => {}
        }
        at = (open + 2 + len + 2).min(text.len());
    }
    match depth {
        0 => Ok(()),
        _ => Err(format!("template: :{}: unexpected EOF", text.matches('\n').count() + 1)),
    }
}

/// Returns the length of an action: up to the braces that close it, which may stand in a text too.
fn action_len(inside: &str) -> usize {
    if let Some(comment) = inside.trim_start_matches("- ").strip_prefix("/*") {
        let end = comment.find("*/").unwrap_or(comment.len());
        let from = inside.len() - comment.len() + end;
        return inside[from..].find("}}").map_or(inside.len(), |found| from + found);
    }
    let mut quote = None;
    let mut letters = inside.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (Some('"' | '\''), '\\') => drop(letters.next()),
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '`' | '\'') => quote = Some(letter),
            (None, '}') if inside[at..].starts_with("}}") => return at,
            _ => {}
        }
    }
    inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_and_texts_and_comments_are_not() {
        for (text, expected) in [
            ("", ""),
            ("{{if .A}}x{{else if .B}}y{{else}}z{{end}}", ""),
            ("{{- range .A -}}{{with .B}}{{end}}{{- end -}}", ""),
            ("{{/* {{end}} */}}", ""),
            ("{{\"}}{{end}}\"}}", ""),
            ("{{`}}{{end}}`}}", ""),
            ("{{endless}}", ""),
            ("{{end}}", ":1: unexpected {{end}}"),
            ("a\n{{ else }}", ":2: unexpected {{else}}"),
            ("{{if .A}}{{end}}{{end}}", ":1: unexpected {{end}}"),
            ("{{range .A}}\n", ":2: unexpected EOF"),
            ("{{if}}x{{end}}", ":1: missing value for if"),
            ("{{}}", ":1: missing value for command"),
            ("{{if(.A)}}", ":1: unexpected EOF"),
        ] {
            let found = check_blocks(text).err().unwrap_or_default();
            let expected =
                if expected.is_empty() { String::new() } else { format!("template: {expected}") };
            assert_eq!(found, expected, "{text}");
        }
    }
}
