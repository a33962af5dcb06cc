//! Commands by their long names: `strata image ls` is `strata images`.
//!
//! A line for each: the long name, its arguments, and the short command that they become.

use clap::Subcommand;

use crate::cli::Command;
use crate::cli::{
    commit, cp, create, diff, export, history, images, import, inspect, ps, pull, push, rename, rm,
    rmi, tag,
};

macro_rules! groups {
    ($($(#[$about:meta])* $group:ident {
        $($(#[$more:meta])* $verb:ident($arguments:ty) => $command:ident,)*
    })*) => {
        $(
            $(#[$about])*
            #[derive(Debug, Subcommand)]
            pub(crate) enum $group {
                $($(#[$more])* $verb($arguments),)*
            }

            impl From<$group> for Command {
                fn from(group: $group) -> Self {
                    match group {
                        $($group::$verb(arguments) => Self::$command(arguments.into()),)*
                    }
                }
            }
        )*
    };
}

groups! {
    /// Manage images
    Image {
        History(history::Arguments) => History,
        Import(import::Arguments) => Import,
        Inspect(inspect::ImageArguments) => Inspect,
        #[command(visible_alias = "list")]
        Ls(images::Arguments) => Images,
        Pull(pull::Arguments) => Pull,
        Push(push::Arguments) => Push,
        #[command(visible_alias = "remove")]
        Rm(rmi::Arguments) => Rmi,
        Tag(tag::Arguments) => Tag,
    }

    /// Manage containers
    Container {
        Commit(commit::Arguments) => Commit,
        Cp(cp::Arguments) => Cp,
        Create(create::Arguments) => Create,
        Diff(diff::Arguments) => Diff,
        Export(export::Arguments) => Export,
        Inspect(inspect::ContainerArguments) => Inspect,
        #[command(visible_aliases = ["list", "ps"])]
        Ls(ps::Arguments) => Ps,
        Rename(rename::Arguments) => Rename,
        #[command(visible_alias = "remove")]
        Rm(rm::Arguments) => Rm,
    }
}
