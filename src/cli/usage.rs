//! What is wrong with what was typed, in docker's words.
//!
//! The parser is clap; its own messages are not shown, because scripts and people know docker's. The
//! usage line of every command is made from its arguments, here, so that help and errors agree.

use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};

use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgAction, Command};

use crate::cli::error::Failure;

/// Gives a command and all below it the usage line that docker would show.
pub(crate) fn shaped(command: Command) -> Command {
    let path = command.get_name().to_owned();
    shaped_below(command, &path)
}

fn shaped_below(command: Command, path: &str) -> Command {
    let usage = usage_line(&command, path);
    let mut command = command.override_usage(usage).args_override_self(true);
    if command.has_subcommands() {
        let is_group = path.contains(' ');
        command = command.arg_required_else_help(true).disable_help_subcommand(is_group);
    }
    command.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        shaped_below(below, &path)
    })
}

/// Returns how a command is used: `strata rmi [OPTIONS] IMAGE [IMAGE...]`.
fn usage_line(command: &Command, path: &str) -> String {
    let mut line = path.to_owned();
    if command.has_subcommands() {
        let is_group = path.contains(' ');
        line.push_str(if is_group { " COMMAND" } else { " [OPTIONS] COMMAND [ARG...]" });
        return line;
    }
    if command.get_arguments().any(is_own_option) {
        line.push_str(" [OPTIONS]");
    }
    for positional in command.get_positionals() {
        let names = positional.get_value_names().unwrap_or_default();
        let name = names.first().map_or(positional.get_id().as_str(), |name| name.as_str());
        let many = most(positional) > 1;
        if let [first, more] = names {
            line.push_str(&format!(" [{first}] [{more}...]"));
            continue;
        }
        line.push_str(&match (positional.is_required_set(), many) {
            (true, false) => format!(" {name}"),
            (true, true) => format!(" {name} [{name}...]"),
            (false, false) => format!(" [{name}]"),
            (false, true) => format!(" [{name}...]"),
        });
    }
    line
}

/// Tells whether an argument is an option that not every command has.
fn is_own_option(argument: &Arg) -> bool {
    let of_all = argument.is_global_set() || argument.get_id() == "help";
    !argument.is_positional() && !argument.is_hide_set() && !of_all
}

/// Returns how many words an argument without a dash takes at most.
fn most(positional: &Arg) -> usize {
    positional.get_num_args().map_or(1, |range| range.max_values())
}

/// Says what is wrong with the words that were typed; help and version are printed.
pub(crate) fn explain(error: &clap::Error, root: &Command, words: &[OsString]) -> Failure {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return match write!(io::stdout(), "{error}") {
                Ok(()) => Failure::Told(0),
                Err(error) => Failure::from(error),
            };
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let printed = write!(io::stderr(), "{error}");
            drop(printed);
            return Failure::Told(0);
        }
        // A variable of the environment for an option of every command hides that nothing was typed.
        ErrorKind::MissingSubcommand => {
            let (command, _) = typed_command(root, words);
            let printed = write!(io::stderr(), "{}", command.clone().render_help());
            drop(printed);
            return Failure::Told(0);
        }
        _ => {}
    }
    let (command, path) = typed_command(root, words);
    let (text, is_flag) = what(error, command, &path, root.get_name(), words);
    let usage = match command.has_subcommands() && !is_flag {
        true if path == root.get_name() => String::new(),
        // What is wrong is the word that the line has after the group.
        true => format!("Usage:  {path}\n\n"),
        false => format!("Usage:  {}\n\n", usage_line(command, &path)),
    };
    let text = format!("{text}\n\n{usage}Run '{path} --help' for more information");
    if is_flag { Failure::Flag(text) } else { Failure::Words(text) }
}

/// Returns the sentence for an error, and whether it is about an option.
fn what(
    error: &clap::Error,
    command: &Command,
    path: &str,
    program: &str,
    words: &[OsString],
) -> (String, bool) {
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let argument = context(ContextKind::InvalidArg);
    let value = context(ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with("--") => {
            (format!("unknown flag: {argument}"), true)
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            let letter = argument.trim_start_matches('-');
            let typed = words.iter().filter_map(|word| word.to_str()?.strip_prefix('-'));
            let mut short = typed.filter(|word| !word.starts_with('-'));
            let left = short.find_map(|word| word.find(letter).map(|at| &word[at..]));
            let left = left.unwrap_or(letter);
            (format!("unknown shorthand flag: '{letter}' in -{left}"), true)
        }
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand);
            (format!("{program}: unknown command: {path} {name}"), false)
        }
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument
            if wants_another_number(error) =>
        {
            (format!("{program}: '{path}' {}", arguments_wanted(command)), false)
        }
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues if value.is_empty() => {
            (format!("flag needs an argument: {}", as_typed(&argument, words)), true)
        }
        ErrorKind::TooManyValues => {
            let flag = with_letter(&argument, command);
            (
                format!("invalid argument {value:?} for \"{flag}\" flag: expected true or false"),
                true,
            )
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation if argument.starts_with('-') => {
            let flag =
                with_letter(argument.split([' ', '=', '[']).next().unwrap_or(&argument), command);
            let why = error.source().map(|source| format!(": {source}"));
            let why = why.or_else(|| {
                let possible = context(ContextKind::ValidValue);
                (!possible.is_empty()).then(|| format!(": must be one of {possible}"))
            });
            let why = why.unwrap_or_default();
            (format!("invalid argument {value:?} for \"{flag}\" flag{why}"), true)
        }
        _ => {
            let text = error.to_string();
            let text = text.split("\n\n").next().unwrap_or_default();
            (format!("{program}: {}", text.trim_start_matches("error: ")), false)
        }
    }
}

/// Returns an option with its letter, if it has one: `-f, --filter`.
fn with_letter(flag: &str, command: &Command) -> String {
    let named = |option: &&Arg| option.get_long() == flag.strip_prefix("--");
    let letter = command.get_arguments().find(named).and_then(Arg::get_short);
    letter.map_or(flag.to_owned(), |letter| format!("-{letter}, {flag}"))
}

/// Returns the option that lacks its value as it was typed: `--format`, or `'f' in -f` of `-qf`.
fn as_typed(argument: &str, words: &[OsString]) -> String {
    let last = words.last().and_then(|word| word.to_str()).unwrap_or_default();
    match last.chars().next_back() {
        Some(letter) if last.starts_with('-') && !last.starts_with("--") => {
            format!("'{letter}' in -{letter}")
        }
        _ => argument.split(' ').next().unwrap_or(argument).to_owned(),
    }
}

/// Tells whether words without a dash are too many or too few.
fn wants_another_number(error: &clap::Error) -> bool {
    match error.get(ContextKind::InvalidArg) {
        Some(clap::error::ContextValue::Strings(missing)) => {
            missing.iter().all(|name| !name.starts_with('-'))
        }
        _ => true,
    }
}

/// Returns how many words without a dash a command wants.
fn arguments_wanted(command: &Command) -> String {
    let required = command.get_positionals().filter(|argument| argument.is_required_set()).count();
    let at_most = command.get_positionals().map(most).fold(0, usize::saturating_add);
    let noun = |number: usize| if number == 1 { "argument" } else { "arguments" };
    match (required, at_most) {
        (0, 0) => "accepts no arguments".to_owned(),
        (least, usize::MAX) => format!("requires at least {least} {}", noun(least)),
        (least, most) if least == most => format!("requires {least} {}", noun(least)),
        (0, most) => format!("requires at most {most} {}", noun(most)),
        (least, most) => format!("requires at least {least} and at most {most} {}", noun(most)),
    }
}

/// Returns the command that the words name, and its path: `strata image ls`.
fn typed_command<'a>(root: &'a Command, words: &[OsString]) -> (&'a Command, String) {
    let (mut command, mut path) = (root, root.get_name().to_owned());
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        if word.as_encoded_bytes().starts_with(b"-") {
            if takes_the_next_word(command, root, word) {
                words.next();
            }
            continue;
        }
        let Some(below) = command.find_subcommand(word) else { break };
        command = below;
        path = format!("{path} {}", below.get_name());
    }
    (command, path)
}

/// Returns the words with `--quiet=true` as `--quiet` and without `--quiet=false`, as docker takes
/// options that say yes.
pub(crate) fn without_truths(root: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let (command, _) = typed_command(root, &words);
    // What follows the image of a container is the container's.
    let trails = command.get_positionals().any(Arg::is_trailing_var_arg_set);
    let depth = path_len(root, &words);
    let (mut kept, mut is_value, mut is_over) = (Vec::new(), false, false);
    for (at, word) in words.into_iter().enumerate() {
        let is_option = word.as_encoded_bytes().starts_with(b"-");
        is_over |= word == "--" || (trails && at > depth && !is_option && !is_value);
        is_value = is_option && takes_the_next_word(command, root, &word);
        match truth_of(command, &word).filter(|_| !is_over) {
            Some((name, true)) => kept.push(name.into()),
            Some((_, false)) => {}
            None => kept.push(word),
        }
    }
    kept
}

/// Returns the place of the last word that names a command.
fn path_len(root: &Command, words: &[OsString]) -> usize {
    let (command, _) = typed_command(root, words);
    let names: Vec<_> = command.get_name_and_visible_aliases();
    words.iter().position(|word| names.iter().any(|name| word == name)).unwrap_or(0)
}

/// Returns the option of a command that a word says yes or no to: `--quiet=false`, `-q=false`.
fn truth_of(command: &Command, word: &OsStr) -> Option<(String, bool)> {
    let (name, value) = word.to_str()?.split_once('=')?;
    let is_named = |option: &&Arg| match name.strip_prefix("--") {
        Some(long) => option.get_long() == Some(long),
        None => option.get_short().is_some_and(|short| name == format!("-{short}")),
    };
    let is_yes = |option: &&Arg| matches!(option.get_action(), ArgAction::SetTrue);
    command.get_arguments().find(|option| is_named(option) && is_yes(option))?;
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some((name.to_owned(), true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some((name.to_owned(), false)),
        _ => None,
    }
}

/// Tells whether the value of an option is the word after it.
fn takes_the_next_word(command: &Command, root: &Command, word: &OsStr) -> bool {
    let Some(word) = word.to_str() else { return false };
    let mut options = command.get_opts().chain(root.get_opts());
    options.any(|option| match word.strip_prefix("--") {
        Some(long) => option.get_long() == Some(long),
        None => option.get_short().is_some_and(|short| word.ends_with(short)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use clap::CommandFactory;

    /// Returns what is said of words, with the exit code.
    fn said(words: &str) -> (String, u8) {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let mut root = shaped(Arguments::command());
        let error = root.try_get_matches_from_mut(words.clone()).expect_err("it is wrong");
        match explain(&error, &root, &words) {
            Failure::Flag(text) => (text, 125),
            Failure::Words(text) => (text, 1),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_commands_are_sound() {
        shaped(Arguments::command()).debug_assert();
    }

    #[test]
    fn what_is_wrong_is_told_as_docker_tells_it() {
        let table = [
            ("strata images --foo", "unknown flag: --foo", "images [OPTIONS] [REPOSITORY[:TAG]]"),
            (
                "strata images -az",
                "unknown shorthand flag: 'z' in -z",
                "images [OPTIONS] \
              [REPOSITORY[:TAG]]",
            ),
            (
                "strata create -x a",
                "unknown shorthand flag: 'x' in -x",
                "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
            ),
            (
                "strata images --digests -ad",
                "unknown shorthand flag: 'd' in -d",
                "images [OPTIONS] [REPOSITORY[:TAG]]",
            ),
            (
                "strata images -qf",
                "flag needs an argument: 'f' in -f",
                "images [OPTIONS] [REPOSITORY[:TAG]]",
            ),
            (
                "strata pull --platform",
                "flag needs an argument: --platform",
                "pull [OPTIONS] NAME[:TAG|@DIGEST]",
            ),
            (
                "strata commit -m",
                "flag needs an argument: 'm' in -m",
                "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
            ),
        ];
        for (words, first, usage) in table {
            let name = usage.split(' ').next().unwrap();
            let expected = format!(
                "{first}\n\nUsage:  strata {usage}\n\nRun 'strata {name} --help' for more information"
            );
            assert_eq!(said(words), (expected, 125), "{words}");
        }
    }

    #[test]
    fn a_wrong_number_of_words_is_told_as_docker_tells_it() {
        let table = [
            ("tag a", "tag", "requires 2 arguments", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]"),
            (
                "--root /x tag a b c",
                "tag",
                "requires 2 arguments",
                "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
            ),
            ("ps x", "ps", "accepts no arguments", "[OPTIONS]"),
            ("rmi", "rmi", "requires at least 1 argument", "[OPTIONS] IMAGE [IMAGE...]"),
            ("images a b", "images", "requires at most 1 argument", "[OPTIONS] [REPOSITORY[:TAG]]"),
            (
                "commit",
                "commit",
                "requires at least 1 and at most 2 arguments",
                "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
            ),
        ];
        for (words, name, wanted, usage) in table {
            let expected = format!(
                "strata: 'strata {name}' {wanted}\n\nUsage:  strata {name} {usage}\n\nRun 'strata \
                 {name} --help' for more information"
            );
            assert_eq!(said(&format!("strata {words}")), (expected, 1), "{words}");
        }
    }

    #[test]
    fn an_option_may_say_yes_or_no() {
        let mut root = shaped(Arguments::command());
        root.build();
        for (words, expected) in [
            ("strata images --quiet=true -a", "strata images --quiet -a"),
            ("strata image ls --no-trunc=false", "strata image ls"),
            ("strata images -q=true -a=false", "strata images -q"),
            ("strata images --quiet=maybe", "strata images --quiet=maybe"),
            ("strata images --format=true", "strata images --format=true"),
            ("strata images -- --quiet=true", "strata images -- --quiet=true"),
            ("strata history --human=false x", "strata history --human=false x"),
        ] {
            let words = words.split(' ').map(OsString::from).collect();
            let kept: Vec<_> = without_truths(&root, words);
            let kept: Vec<_> = kept.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(kept.join(" "), expected);
        }
    }

    #[test]
    fn an_unknown_command_is_told_as_docker_tells_it() {
        let expected =
            "strata: unknown command: strata foo\n\nRun 'strata --help' for more information";
        assert_eq!(said("strata foo"), (expected.to_owned(), 1));
    }
}
