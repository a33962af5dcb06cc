//! `strata diff`.

use std::io::{self, Write};

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::format::size;
use crate::cli::output::print;
use crate::cli::patch;
use crate::service::{DiffKind, FileChange, Strata};

/// List what a container has changed, or in what two trees differ
///
/// A tree is an image, a container, a snapshot of one: CONTAINER@NAME, or an image up to a layer:
/// IMAGE@NUMBER, counted from 1 at the bottom. A container or snapshot alone is compared with its image, a layer alone with those below it. A line
/// for each path: A for added, C for changed, D for deleted. The other forms tell of files and not of
/// directories.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata diff work\n  strata diff -p debian:12.1 debian:12.2\n  \
                        strata diff --stat my/app:1@3"
)]
pub(crate) struct Arguments {
    /// List files with git's letters: A, M, D, and T where the kind of file has changed
    #[arg(long, group = "form")]
    name_status: bool,

    /// List files with the change of their sizes, and the sums
    #[arg(long, group = "form")]
    stat: bool,

    /// Print a patch of text files
    #[arg(short, long, group = "form")]
    patch: bool,

    /// A container, an image or a layer
    #[arg(value_name = "CONTAINER|TREE")]
    first: String,

    /// What it is compared with
    #[arg(value_name = "TREE")]
    second: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let strata = context.strata()?;
    let (first, second) = (arguments.first.as_str(), arguments.second.as_deref());
    let mut out = io::BufWriter::new(io::stdout().lock());
    if arguments.name_status {
        strata.diff_files::<Failure>(first, second, &mut |change| {
            write!(out, "{}\t", letter(change))?;
            out.write_all(&change.path)?;
            Ok(out.write_all(b"\n")?)
        })?;
    } else if arguments.stat {
        stat(&strata, first, second, &mut out)?;
    } else if arguments.patch {
        strata
            .diff_files::<Failure>(first, second, &mut |change| patch::write(change, &mut out))?;
    } else {
        drop(out);
        return list(&strata, first, second);
    }
    Ok(out.flush()?)
}

/// Prints docker's form.
fn list(strata: &Strata, first: &str, second: Option<&str>) -> Result<(), Failure> {
    let lines = match second {
        None if !first.contains('@') => strata.diff(first)?,
        _ => strata.diff_trees(first, second)?,
    };
    let mut text = Vec::new();
    for line in lines {
        text.push(match line.kind {
            DiffKind::Added => b'A',
            DiffKind::Changed => b'C',
            DiffKind::Deleted => b'D',
        });
        text.push(b' ');
        text.extend_from_slice(&line.path);
        text.push(b'\n');
    }
    print(&text)
}

/// Returns git's letter for a change.
fn letter(change: &FileChange<'_>) -> char {
    match (&change.before, &change.after) {
        (None, _) => 'A',
        (_, None) => 'D',
        (Some(before), Some(after)) if before.kind != after.kind => 'T',
        _ => 'M',
    }
}

fn stat(
    strata: &Strata,
    first: &str,
    second: Option<&str>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let (mut files, mut more, mut less) = (0, 0, 0);
    strata.diff_files::<Failure>(first, second, &mut |change| {
        let old = change.before.as_ref().map_or(0, |side| side.size);
        let new = change.after.as_ref().map_or(0, |side| side.size);
        files += 1;
        more += new.saturating_sub(old);
        less += old.saturating_sub(new);
        let text = match new.cmp(&old) {
            std::cmp::Ordering::Less => format!("-{}", size(old - new)),
            std::cmp::Ordering::Equal => "0B".to_owned(),
            std::cmp::Ordering::Greater => format!("+{}", size(new - old)),
        };
        write!(out, "{} {text:>9} ", letter(change))?;
        out.write_all(&change.path)?;
        Ok(out.write_all(b"\n")?)
    })?;
    let noun = if files == 1 { "file" } else { "files" };
    Ok(writeln!(out, "{files} {noun} changed, +{}, -{}", size(more), size(less))?)
}
