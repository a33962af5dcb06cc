//! `strata tag`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::image::Reference;
use crate::service::Error;

/// Give an image another name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata tag debian:12 localhost:5000/base/debian:12")]
pub(crate) struct Arguments {
    /// The image
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,

    /// The new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let parsed = arguments.target.parse::<Reference>();
    let target = refuse_digest(parsed.map_err(|error| not_a_name(&arguments.target, &error))?)?;
    context.strata()?.tag(&arguments.source, &target).map_err(|error| match error {
        Error::ImageName(error) => not_a_name(&arguments.source, &error),
        error => error.into(),
    })
}

fn not_a_name(text: &str, error: &crate::image::Error) -> Failure {
    let text = format!("Error parsing reference: {text:?} is not a valid repository/tag: {error}");
    Failure::text(text)
}

/// Returns the name of a new image, if it is to have one.
pub(crate) fn new_name(text: Option<&str>) -> Result<Option<Reference>, Failure> {
    let name: Option<Reference> = text.map(str::parse).transpose()?;
    name.map(refuse_digest).transpose()
}

/// Refuses to give an image a name with a digest, which only a registry can.
fn refuse_digest(name: Reference) -> Result<Reference, Failure> {
    match name.digest() {
        Some(_) => Err(Failure::text("refusing to create a tag with a digest reference")),
        None => Ok(name),
    }
}
