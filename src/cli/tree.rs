//! `strata tree`.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format;
use crate::cli::listing::{shown, with_target};
use crate::service::{Kind, TreeFile, TreePath, Walk};

/// Draw what is below a directory of an image or a container
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata tree -L 2 debian:12:/etc")]
pub(crate) struct Arguments {
    /// Go so many directories deep
    #[arg(short = 'L', value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..))]
    level: Option<u32>,

    /// Only directories
    #[arg(short)]
    directories: bool,

    /// Print the size of each regular file
    #[arg(short)]
    size: bool,

    /// Where to begin; without a path the root
    #[arg(value_name = "IMAGE|CONTAINER[:/PATH]")]
    place: OsString,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let at = TreePath::parse(&arguments.place);
    let (mut directories, mut others) = (0_u64, 0_u64);
    let mut lines = Vec::new();
    context.strata()?.walk_tree::<Failure>(&at, &mut |depth, file| {
        match file.kind {
            Kind::Directory => directories += u64::from(depth > 0),
            _ if arguments.directories => return Ok(Walk::Past),
            _ => others += 1,
        }
        lines.push((depth, label(file, depth, arguments.size)));
        let is_deepest = arguments.level.is_some_and(|level| depth >= level as usize);
        Ok(if is_deepest { Walk::Past } else { Walk::Into })
    })?;
    let mut out = BufWriter::new(io::stdout().lock());
    for line in drawn(&lines) {
        out.write_all(&line)?;
    }
    out.flush()?;
    let plural = |count, one, many| if count == 1 { one } else { many };
    let mut summary =
        format!("\n{directories} {}", plural(directories, "directory", "directories"));
    if !arguments.directories {
        summary.push_str(&format!(", {others} {}", plural(others, "file", "files")));
    }
    crate::cli::output::line(&summary)
}

fn label(file: &TreeFile, depth: usize, with_size: bool) -> Vec<u8> {
    let name = if depth == 0 { &file.path } else { file.name() };
    let mut label = match with_size && file.kind == Kind::Regular {
        true => format!("[{:>6}]  ", format::size(file.size)).into_bytes(),
        false => Vec::new(),
    };
    label.extend(with_target(shown(name), file));
    label
}

/// Returns lines with the branches that lead to them. What comes is a directory before what is in it,
/// with how deep it is.
fn drawn(lines: &[(usize, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut drawn = Vec::new();
    // Of each depth, whether another file of the same directory follows.
    let mut follows = Vec::new();
    for (depth, label) in lines.iter().rev() {
        follows.resize(depth + 1, false);
        let mut line = String::new();
        for (at, follows) in follows.iter().enumerate().skip(1) {
            line.push_str(match (at == *depth, follows) {
                (true, true) => "├── ",
                (true, false) => "└── ",
                (false, true) => "│   ",
                (false, false) => "    ",
            });
        }
        follows[*depth] = true;
        drawn.push([line.as_bytes(), label, b"\n"].concat());
    }
    drawn.reverse();
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_end_with_their_last_file() {
        let line = |depth, name: &str| (depth, name.as_bytes().to_vec());
        let lines = [
            line(0, "/"),
            line(1, "a"),
            line(2, "b"),
            line(3, "c"),
            line(2, "d"),
            line(1, "e"),
            line(2, "f"),
        ];
        let expected = "/\n├── a\n│   ├── b\n│   │   └── c\n│   └── d\n└── e\n    └── f\n";
        assert_eq!(String::from_utf8(drawn(&lines).concat()).unwrap(), expected);
    }
}
