//! `strata doctor`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::output::line;
use crate::service::{Finding, Verdict};

/// Look at what this machine offers, and say what would make strata faster
///
/// Nothing is changed. The code is 1 if something does not work.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  strata doctor")]
pub(crate) struct Arguments {}

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let findings = context.strata()?.examine()?;
    findings.iter().try_for_each(|finding| line(&shown(finding)))?;
    match findings.iter().any(|finding| finding.verdict == Verdict::Bad) {
        true => Err(Failure::Told(1)),
        false => Ok(()),
    }
}

fn shown(finding: &Finding) -> String {
    let mark = match finding.verdict {
        Verdict::Good => "ok",
        Verdict::Slow => "slow",
        Verdict::Bad => "bad",
    };
    let text = format!("{mark:<4}  {:<19} {}", finding.what, finding.found);
    match &finding.command {
        Some(command) => format!("{text}\n      {:<19} try: {command}", ""),
        None => text,
    }
}
