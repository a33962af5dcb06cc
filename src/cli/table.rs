//! Columns, as Go's `text/tabwriter` sets them for docker.
//!
//! A cell ends with a tab; what follows the last tab of a line is in no column. A column is as wide as
//! its widest cell among the lines that follow one another and have it, with three spaces, and has ten
//! at least.

const LEAST_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Returns a text with spaces in place of its tabs.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len()]).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut from = 0;
        while from < lines.len() {
            let has = |line: &Vec<&str>| line.len() > column + 1;
            let len = lines[from..].iter().take_while(|line| has(line)).count();
            let cells = lines[from..from + len].iter().map(|line| line[column].chars().count());
            let width = cells.map(|cell| cell + PADDING).max().unwrap_or(0).max(LEAST_WIDTH);
            widths[from..from + len].iter_mut().for_each(|line| line[column] = width);
            from += len.max(1);
        }
    }
    let mut out = String::new();
    for (line, widths) in lines.iter().zip(widths) {
        for (cell, width) in line.iter().zip(widths) {
            out.push_str(&format!("{cell:<width$}"));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go 1.19 makes of the same texts with `NewWriter(out, 10, 1, 3, ' ', 0)`.
    #[test]
    fn columns_are_as_wide_as_those_of_go() {
        for (text, expected) in [
            ("", ""),
            ("a\n", "a\n"),
            ("TAG\tID\n1\t2\n", "TAG       ID\n1         2\n"),
            ("REPOSITORY\tTAG\nx\t\n", "REPOSITORY   TAG\nx            \n"),
            ("ä…\tb\n12345678\tb\n", "ä…         b\n12345678   b\n"),
            ("a\tb\tc\nd\n12345678901\tb\n", "a         b         c\nd\n12345678901   b\n"),
        ] {
            assert_eq!(align(text), expected, "{text:?}");
        }
    }
}
