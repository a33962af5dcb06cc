//! How large an image may be: options of the commands that take layers from somebody else.

use clap::Args;

use crate::cli::format::parse_size;
use crate::service::Limits;

/// Where the help lists them.
const HEADING: &str = "Limits";

/// What a small blob may become.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Refuse a layer that is larger than this without compression, its holes counted: 500MB,
    /// 1TiB; 0 is no limit [default: 128GiB]
    #[arg(
        long,
        help_heading = HEADING,
        value_name = "SIZE",
        env = "STRATA_MAX_LAYER_SIZE",
        hide_env_values = true,
        value_parser = parse_size
    )]
    max_layer_size: Option<u64>,

    /// Refuse an image with more files and directories than this, those that a layer hides
    /// counted; 0 is no limit [default: 4000000]
    #[arg(
        long,
        help_heading = HEADING,
        value_name = "NUMBER",
        env = "STRATA_MAX_ENTRIES",
        hide_env_values = true
    )]
    max_entries: Option<u64>,
}

impl Arguments {
    /// Returns the limits that they say.
    pub(crate) fn limits(&self) -> Limits {
        let limit = |said: Option<u64>, default| match said {
            Some(0) => u64::MAX,
            said => said.unwrap_or(default),
        };
        let Limits { size_bytes, entries } = Limits::default();
        Limits {
            size_bytes: limit(self.max_layer_size, size_bytes),
            entries: limit(self.max_entries, entries),
        }
    }
}
