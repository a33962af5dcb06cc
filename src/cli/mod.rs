//! What the user types and sees. The only room that prints.
//!
//! One file for each command: its arguments, whose doc comments are its help, and a function that
//! asks the service and shows the answer. What docker's command of the same name prints, this
//! prints; `docs/cli.md` says where not, and why.
//!
//! Data, and the progress of pull and push as docker has it, goes to standard output, everything else
//! to standard error. A closed pipe is no error.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the room that prints")]

mod analyze;
mod append;
mod bench;
mod blame;
mod cat;
mod commit;
mod cp;
mod create;
mod df;
mod diff;
mod doctor;
mod error;
mod explore;
mod export;
mod file;
mod find;
mod format;
mod fsck;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod group;
mod history;
mod image_tree;
mod images;
mod import;
mod inspect;
mod layers;
mod limits;
mod listing;
mod load;
mod login;
mod ls;
mod manifest;
mod mount;
mod mutate;
mod output;
mod overlay;
mod pages;
mod patch;
mod pin;
mod progress;
mod prune;
mod ps;
mod pull;
mod push;
mod rebase;
mod remount;
mod rename;
mod rm;
mod rmi;
mod rows;
mod save;
mod snapshot;
mod squash;
mod table;
mod tag;
mod template;
mod tree;
mod umount;
mod undo;
mod untag;
mod usage;
mod version;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::error::Failure;
use crate::service::{
    Error, Progress, Quiet, RegistryOptions, Strata, docker_setting, hold_interrupts,
    is_driver_name,
};

/// Where the help lists what every command takes.
const GLOBAL: &str = "Options of every command";

/// A container image mounted as an ordinary folder, its changes kept in a layer of their own and
/// committed as a new image. No daemon, no root needed.
#[derive(Debug, Parser)]
#[command(
    name = "strata",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:\n  strata pull debian:12\n  strata mount --rw --name work debian:12 \
                  /mnt\n  echo hello > /mnt/etc/motd\n  strata commit work my/debian:edited\n  \
                  strata umount work"
)]
struct Arguments {
    /// Where images and containers are kept [default: /var/lib/strata for root, else
    /// ~/.local/share/strata]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "DIR", env = "STRATA_ROOT", hide_env_values = true)]
    root: Option<PathBuf>,

    /// A registry that may be used without TLS or with a certificate nobody vouches for: HOST,
    /// HOST:PORT or a network (repeatable)
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_name = "REGISTRY",
        env = "STRATA_INSECURE_REGISTRIES",
        value_delimiter = ',',
        hide_env_values = true
    )]
    insecure_registry: Vec<String>,

    /// How many seconds a registry may be silent [default: 60]
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_name = "SECONDS",
        env = "STRATA_REGISTRY_TIMEOUT",
        value_parser = clap::value_parser!(u64).range(1..),
        hide_env_values = true
    )]
    registry_timeout: Option<u64>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(subcommand)]
    Image(group::Image),
    #[command(subcommand)]
    Container(group::Container),
    Analyze(analyze::Arguments),
    Append(append::Arguments),
    Bench(bench::Arguments),
    Blame(blame::Arguments),
    Cat(cat::Arguments),
    #[command(subcommand)]
    System(group::System),
    #[command(subcommand)]
    Manifest(group::Manifest),
    #[command(skip)]
    ManifestInspect(manifest::Arguments),
    #[command(skip)]
    ContainerSnapshot(group::Snapshot),
    #[command(skip)]
    ContainerSnapshotRm(snapshot::RemoveArguments),
    #[command(skip)]
    ContainerPrune(prune::ContainerArguments),
    #[command(skip)]
    ImagePrune(prune::ImageArguments),
    #[command(skip)]
    SystemDf(df::Arguments),
    #[command(skip)]
    SystemPrune(prune::SystemArguments),
    Commit(commit::Arguments),
    Completions(pages::Completions),
    Cp(cp::Arguments),
    Create(create::Arguments),
    Diff(diff::Arguments),
    Doctor(doctor::Arguments),
    Explore(explore::Arguments),
    Export(export::Arguments),
    Find(find::Arguments),
    Fsck(fsck::Arguments),
    History(history::Arguments),
    Images(images::Arguments),
    Import(import::Arguments),
    Info(version::InfoArguments),
    Inspect(inspect::Arguments),
    Layers(layers::Arguments),
    Ls(ls::Arguments),
    Login(login::Arguments),
    Logout(login::LogoutArguments),
    Load(load::Arguments),
    Man(pages::Man),
    Mount(mount::Arguments),
    Mutate(mutate::Arguments),
    Overlay(overlay::Arguments),
    Pin(pin::Arguments),
    Ps(ps::Arguments),
    Pull(pull::Arguments),
    Push(push::Arguments),
    Rebase(rebase::Arguments),
    Remount(remount::Arguments),
    Rename(rename::Arguments),
    Rm(rm::Arguments),
    Rmi(rmi::Arguments),
    Save(save::Arguments),
    #[command(hide = true)]
    Search(pages::Search),
    Snapshot(snapshot::Arguments),
    Snapshots(snapshot::ListArguments),
    Squash(squash::Arguments),
    Tag(tag::Arguments),
    Tree(tree::Arguments),
    Umount(umount::Arguments),
    Undo(undo::Arguments),
    Unpin(pin::UnpinArguments),
    Untag(untag::Arguments),
    Version(version::Arguments),
}

/// What every command gets.
struct Context {
    root: PathBuf,
    options: RegistryOptions,
}

impl Context {
    /// Opens the store, for a command that tells nothing while it works.
    fn strata(&self) -> Result<Strata, Failure> {
        self.strata_with(Arc::new(Quiet))
    }

    /// Returns the form of a list: as it was asked for, or as docker's `config.json` says under a name.
    fn list_format(&self, asked: Option<&str>, name: &str) -> Option<String> {
        if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
            return Some(asked.to_owned());
        }
        docker_setting(&self.options, name).unwrap_or_else(|error| {
            // Docker lists all the same.
            let written = writeln!(std::io::stderr(), "WARNING: {error}");
            drop(written);
            None
        })
    }

    /// Returns this with one more registry that may be insecure.
    fn with_insecure(&self, domain: &str) -> Self {
        let mut options = self.options.clone();
        options.insecure.push(domain.to_owned());
        Self { root: self.root.clone(), options }
    }

    /// Opens the store, for a command whose work is followed.
    fn strata_with(&self, progress: Arc<dyn Progress>) -> Result<Strata, Failure> {
        Ok(Strata::open(&self.root, self.options.clone(), progress)?)
    }

    /// Opens the store, which may be damaged, to check it.
    fn strata_to_check(&self, progress: Arc<dyn Progress>) -> Result<Strata, Error> {
        Strata::open_to_check(&self.root, self.options.clone(), progress)
    }

    /// Returns a failure with what there is to say about the room where the store is, if there was too
    /// little.
    fn telling_room(&self, failure: Failure) -> Failure {
        let is_short = match &failure {
            Failure::One(error) => error.is_no_room(),
            Failure::Several(errors) => errors.iter().any(crate::service::Error::is_no_room),
            _ => false,
        };
        if !is_short || !self.root.exists() {
            return failure;
        }
        // Where the store cannot even be opened, nothing in it could be removed.
        match (failure, self.strata()) {
            (Failure::One(error), Ok(strata)) => Failure::One(strata.telling_room(error)),
            (Failure::Several(errors), Ok(strata)) => {
                let told = errors.into_iter().map(|error| strata.telling_room(error));
                Failure::Several(told.collect())
            }
            (failure, _) => failure,
        }
    }

    /// Opens the store, for a command that makes something: interrupted, it leaves nothing half-done.
    fn strata_for_work(&self, progress: Arc<dyn Progress>) -> Result<Strata, Failure> {
        hold_interrupts()?;
        let strata = self.strata_with(progress)?;
        strata.abandon_on_interrupt()?;
        Ok(strata)
    }
}

/// Runs the program and returns its exit code.
pub fn run() -> ExitCode {
    start_logging();
    match parse(words(std::env::args_os())).and_then(run_arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Returns what the words mean.
fn parse(words: Vec<OsString>) -> Result<Arguments, Failure> {
    let mut command = usage::shaped(Arguments::command());
    let words = usage::without_truths(&command, words);
    let matches = command.try_get_matches_from_mut(&words);
    let arguments = matches.and_then(|mut matches| Arguments::from_arg_matches_mut(&mut matches));
    arguments.map_err(|error| {
        // Not before: making all commands whole takes as long as all the rest of a start. What was
        // asked for, help or a version, is there already.
        if error.use_stderr() {
            command.build();
        }
        usage::explain(&error, &command, &words)
    })
}

fn run_arguments(arguments: Arguments) -> Result<(), Failure> {
    let mut options = RegistryOptions::default();
    options.insecure.extend(arguments.insecure_registry);
    if let Some(seconds) = arguments.registry_timeout {
        options.read_timeout = Duration::from_secs(seconds);
    }
    match arguments.root.or_else(default_root) {
        Some(root) => {
            let context = Context { root, options };
            dispatch(arguments.command, &context).map_err(|failure| context.telling_room(failure))
        }
        None => Err(Failure::text("neither XDG_DATA_HOME nor HOME is set; say --root DIR")),
    }
}

/// Returns the words of the command line. Called by the name of another overlay driver the program is
/// that driver.
fn words(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<_> = words.collect();
    let called = words.first().map(Path::new).and_then(Path::file_name);
    if called.is_some_and(is_driver_name) {
        let version = |word: &OsString| word == "--version" || word == "-V";
        if !words.iter().any(version) {
            words.insert(1, "overlay".into());
        }
    }
    words
}

fn dispatch(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Image(command) => dispatch(command.into(), context),
        Command::Container(command) => dispatch(command.into(), context),
        Command::Analyze(arguments) => analyze::run(&arguments, context),
        Command::Append(arguments) => append::run(arguments, context),
        Command::Bench(arguments) => bench::run(arguments, context),
        Command::Blame(arguments) => blame::run(&arguments, context),
        Command::Cat(arguments) => cat::run(&arguments, context),
        Command::Commit(arguments) => commit::run(arguments, context),
        Command::Completions(arguments) => pages::completions(&arguments),
        Command::Cp(arguments) => cp::run(&arguments, context),
        Command::Create(arguments) => create::run(arguments, context),
        Command::Diff(arguments) => diff::run(&arguments, context),
        Command::Doctor(_) => doctor::run(context),
        Command::Explore(arguments) => explore::run(&arguments, context),
        Command::Export(arguments) => export::run(&arguments, context),
        Command::Find(arguments) => find::run(&arguments, context),
        Command::Fsck(arguments) => fsck::run(arguments, context),
        Command::History(arguments) => history::run(&arguments, context),
        Command::Images(arguments) => images::run(&arguments, context),
        Command::Import(arguments) => import::run(arguments, context),
        Command::Info(arguments) => version::run_info(&arguments, context),
        Command::Inspect(arguments) => inspect::run(&arguments, context),
        Command::Layers(arguments) => layers::run(&arguments, context),
        Command::Ls(arguments) => ls::run(&arguments, context),
        Command::Login(arguments) => login::run(arguments, context),
        Command::Logout(arguments) => login::run_logout(&arguments, context),
        Command::Man(arguments) => pages::man(&arguments),
        Command::Manifest(command) => dispatch(command.into(), context),
        Command::ManifestInspect(arguments) => manifest::run(&arguments, context),
        Command::Load(arguments) => load::run(arguments, context),
        Command::Mount(arguments) => mount::run(arguments, context),
        Command::Mutate(arguments) => mutate::run(arguments, context),
        Command::Overlay(arguments) => overlay::run(arguments),
        Command::ContainerPrune(arguments) => prune::run_container(&arguments, context),
        Command::ImagePrune(arguments) => prune::run_image(&arguments, context),
        Command::SystemPrune(arguments) => prune::run_system(&arguments, context),
        Command::SystemDf(arguments) => df::run(&arguments, context),
        Command::Pin(arguments) => pin::run(&arguments, context),
        Command::Unpin(arguments) => pin::run_unpin(&arguments, context),
        Command::Ps(arguments) => ps::run(&arguments, context),
        Command::Pull(arguments) => pull::run(arguments, context),
        Command::Push(arguments) => push::run(&arguments, context),
        Command::Rebase(arguments) => rebase::run(arguments, context),
        Command::Remount(arguments) => remount::run(&arguments, context),
        Command::Rename(arguments) => rename::run(&arguments, context),
        Command::Rm(arguments) => rm::run(&arguments, context),
        Command::Rmi(arguments) => rmi::run(&arguments, context),
        Command::Save(arguments) => save::run(arguments, context),
        Command::Search(arguments) => pages::search(&arguments),
        Command::Snapshot(arguments) => snapshot::run(arguments, context),
        Command::Snapshots(arguments) => snapshot::run_list(&arguments, context),
        Command::ContainerSnapshot(command) => dispatch(command.into(), context),
        Command::ContainerSnapshotRm(arguments) => snapshot::run_remove(&arguments, context),
        Command::Squash(arguments) => squash::run(arguments, context),
        Command::System(command) => dispatch(command.into(), context),
        Command::Tag(arguments) => tag::run(&arguments, context),
        Command::Tree(arguments) => tree::run(&arguments, context),
        Command::Umount(arguments) => umount::run(&arguments, context),
        Command::Undo(arguments) => undo::run(arguments, context),
        Command::Untag(arguments) => untag::run(&arguments, context),
        Command::Version(arguments) => version::run(&arguments),
    }
}

/// Returns where the store is when nobody says it.
fn default_root() -> Option<PathBuf> {
    if crate::service::runs_as_root() {
        return Some(PathBuf::from("/var/lib/strata"));
    }
    let data = std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let data = data.or_else(|| std::env::home_dir().map(|home| home.join(".local/share")));
    data.map(|data| data.join("strata"))
}

/// Sends what the rooms log to standard error: warnings, or what STRATA_LOG asks for.
fn start_logging() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("STRATA_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
}
