//! `strata login` and `strata logout`.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::Arc;

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::{line, print};
use crate::service::{Kept, Quiet, Server, hide_typing};

/// Log in to a registry
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  strata login localhost:5000\n  strata login -u me \
                        --password-stdin ghcr.io < token")]
pub(crate) struct Arguments {
    /// The password, or a token in its place; other people of this machine can see it
    #[arg(short, long)]
    password: Option<String>,

    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,

    /// The user
    #[arg(short, long)]
    username: Option<String>,

    /// The registry: HOST or HOST:PORT; docker's own if none is said
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Forget the login for a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata logout localhost:5000")]
pub(crate) struct LogoutArguments {
    /// The registry: HOST or HOST:PORT; docker's own if none is said
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

const NO_TERMINAL: &str = "Cannot perform an interactive login from a non TTY device";

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let server = server(arguments.server.as_deref())?;
    let is_bare = arguments.username.is_none() && arguments.password.is_none();
    let strata = context.strata_for_work(Arc::new(Quiet))?;
    if is_bare && !arguments.password_stdin {
        // A login that is kept and still good is not asked for again.
        match strata.log_in_again(&server) {
            Ok(Some(_)) => {
                line("Authenticating with existing credentials...")?;
                return line("Login Succeeded");
            }
            Ok(None) => {}
            Err(error) if !io::stdin().is_terminal() => return Err(error.into()),
            Err(_) => line("Login did not succeed with the credentials that are kept")?,
        }
    }
    let (user, password) = credentials(arguments, &server)?;
    let kept = strata.log_in(&server, &user, &password)?;
    if let Kept::File(path) = kept {
        warn(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential \
             helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            path.display()
        ));
    }
    line("Login Succeeded")
}

pub(crate) fn run_logout(arguments: &LogoutArguments, context: &Context) -> Result<(), Failure> {
    let server = server(arguments.server.as_deref())?;
    line(&format!("Removing login credentials for {}", server.name()))?;
    Ok(context.strata()?.log_out(&server)?)
}

fn server(text: Option<&str>) -> Result<Server, Failure> {
    Ok(Server::parse(text.unwrap_or_default()).map_err(crate::service::Error::from)?)
}

/// Returns user and password, from the arguments or from the person.
fn credentials(arguments: Arguments, server: &Server) -> Result<(String, String), Failure> {
    let wrong = |text: &str| Err(Failure::Words(text.to_owned()));
    if arguments.password.is_some() {
        if arguments.password_stdin {
            return wrong(
                "conflicting options: cannot specify both --password and --password-stdin",
            );
        }
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if arguments.password_stdin {
        let Some(user) = arguments.username else {
            return wrong("the --password-stdin option requires --username to be set");
        };
        let mut password = String::new();
        let read = io::stdin().read_to_string(&mut password);
        read.map_err(|error| Failure::text(format!("standard input: {error}")))?;
        let password = password.strip_suffix('\n').unwrap_or(&password);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if password.is_empty() {
            return wrong("password is empty");
        }
        return Ok((user, password.to_owned()));
    }
    let asks = arguments.username.is_none() || arguments.password.is_none();
    if asks && !io::stdin().is_terminal() {
        return Err(Failure::text(NO_TERMINAL));
    }
    let user = match arguments.username {
        Some(user) => user,
        None => ask(&format!("Username for {}: ", server.name()), false)?,
    };
    let password = match arguments.password {
        Some(password) => password,
        None => ask("Password: ", true)?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(Failure::text("a user and a password are required"));
    }
    Ok((user, password))
}

/// Asks the person for a line.
fn ask(question: &str, hidden: bool) -> Result<String, Failure> {
    print(question.as_bytes())?;
    let stdin = io::stdin();
    let guard = if hidden { Some(hide_typing(&stdin)?) } else { None };
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    drop(guard);
    if hidden {
        print(b"\n")?;
    }
    read.map_err(|error| Failure::text(format!("standard input: {error}")))?;
    Ok(answer.trim().to_owned())
}

fn warn(text: &str) {
    let written = writeln!(io::stderr(), "{text}");
    drop(written);
}
