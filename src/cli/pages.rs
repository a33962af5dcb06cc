//! `strata completions`, `strata man`, and `strata search`, which is not there.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::error::Failure;
use crate::cli::output::print;
use crate::cli::usage::shaped;

/// Print what completes commands in a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata completions bash > \
                        /usr/share/bash-completion/completions/strata\n  strata completions zsh > \
                        /usr/share/zsh/site-functions/_strata\n  strata completions fish > \
                        ~/.config/fish/completions/strata.fish")]
pub(crate) struct Completions {
    /// The shell: bash, zsh or fish
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages into a directory, a page for each command
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata man /usr/share/man/man1")]
pub(crate) struct Man {
    /// The directory; it is made when it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Search docker's registry; strata does not do this
#[derive(Debug, Args)]
pub(crate) struct Search {
    /// What to search for
    #[arg(value_name = "TERM", required = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub(crate) fn completions(arguments: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    let mut command = shaped(crate::cli::Arguments::command());
    clap_complete::generate(arguments.shell, &mut command, "strata", &mut text);
    print(&text)
}

pub(crate) fn man(arguments: &Man) -> Result<(), Failure> {
    let wrong =
        |error: std::io::Error| Failure::text(format!("{}: {error}", arguments.dir.display()));
    std::fs::create_dir_all(&arguments.dir).map_err(wrong)?;
    let command = shaped(crate::cli::Arguments::command());
    clap_mangen::generate_to(command, &arguments.dir).map_err(wrong)
}

pub(crate) fn search(arguments: &Search) -> Result<(), Failure> {
    let words = arguments.words.join("+");
    Err(Failure::text(format!(
        "search is docker's own and no part of what registries speak; look at \
         https://hub.docker.com/search?q={words}"
    )))
}
