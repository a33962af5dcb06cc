//! `strata mutate`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::line;
use crate::cli::tag::new_name;
use crate::image::Edit;
use crate::service::MutateRequest;

/// Make a new image with another configuration on the same layers
///
/// No layer is made, and pushing uploads none. Values are taken literally. What is removed need not
/// be there. Instructions of -c come first, then removals, then the rest.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  strata mutate debian:12 -t my/debian:1 --env LANG=C.UTF-8 --cmd \
                        bash\n  strata mutate my/app:1 -t my/app:1 --unset-label builder \
                        --entrypoint '[\"/bin/my app\"]'"
)]
pub(crate) struct Arguments {
    /// The name of the new image; without it the image has none
    #[arg(short, long, value_name = "REPOSITORY[:TAG]")]
    tag: Option<String>,

    /// What the history says
    #[arg(short, long)]
    message: Option<String>,

    /// Change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR (repeatable)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,

    /// Set a variable of the environment (repeatable)
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// Remove a variable of the environment (repeatable)
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<String>,

    /// Set a label (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,

    /// Remove a label (repeatable)
    #[arg(long, value_name = "KEY")]
    unset_label: Vec<String>,

    /// Set the program that always runs, words or a JSON list, and remove the command; '' for none
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    entrypoint: Option<String>,

    /// Set the command, words or a JSON list; '' for none
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    cmd: Option<String>,

    /// Set the user; '' for none
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// Set the directory that the program starts in; '' for none
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// Add a directory that is kept outside the image (repeatable)
    #[arg(long, value_name = "DIR")]
    volume: Vec<String>,

    /// Remove such a directory (repeatable)
    #[arg(long, value_name = "DIR")]
    unset_volume: Vec<String>,

    /// Add ports that the program listens on (repeatable)
    #[arg(long, value_name = "PORT[-PORT][/PROTOCOL]")]
    expose: Vec<String>,

    /// Remove ports (repeatable)
    #[arg(long, value_name = "PORT[-PORT][/PROTOCOL]")]
    unset_expose: Vec<String>,

    /// Set the signal that stops the program; '' for none
    #[arg(long, value_name = "SIGNAL")]
    stopsignal: Option<String>,

    /// The image
    image: String,
}

/// Makes a change of what was typed.
type Made = fn(String) -> Edit;

impl Arguments {
    /// Returns the changes in the order that they are made in.
    fn edits(&self) -> Vec<Edit> {
        let many: [(&[String], Made); 8] = [
            (&self.unset_env, Edit::UnsetEnv),
            (&self.unset_label, Edit::UnsetLabel),
            (&self.unset_volume, Edit::UnsetVolume),
            (&self.unset_expose, Edit::UnsetExpose),
            (&self.env, Edit::Env),
            (&self.label, Edit::Label),
            (&self.volume, Edit::Volume),
            (&self.expose, Edit::Expose),
        ];
        let one: [(&Option<String>, Made); 5] = [
            (&self.entrypoint, Edit::Entrypoint),
            (&self.cmd, Edit::Cmd),
            (&self.user, Edit::User),
            (&self.workdir, Edit::WorkDir),
            (&self.stopsignal, Edit::StopSignal),
        ];
        let many = many.into_iter().flat_map(|(texts, edit)| texts.iter().cloned().map(edit));
        many.chain(one.into_iter().filter_map(|(text, edit)| text.clone().map(edit))).collect()
    }
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let reference = new_name(arguments.tag.as_deref())?;
    let edits = arguments.edits();
    let id = context.strata()?.mutate(&MutateRequest {
        image: arguments.image,
        reference,
        message: arguments.message,
        changes: arguments.changes,
        edits,
    })?;
    line(&id.to_string())
}
