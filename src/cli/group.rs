//! Commands by their long names: `strata image ls` is `strata images`.
//!
//! A line for each: the long name, its arguments, and the short command that they become.

use clap::Subcommand;

use crate::cli::Command;
use crate::cli::{
    commit, cp, create, df, diff, export, history, images, import, inspect, load, manifest, prune,
    ps, pull, push, rename, rm, rmi, save, snapshot, tag, undo, untag, version,
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
        Load(load::Arguments) => Load,
        Prune(prune::ImageArguments) => ImagePrune,
        Pull(pull::Arguments) => Pull,
        Push(push::Arguments) => Push,
        #[command(visible_alias = "remove")]
        Rm(rmi::Arguments) => Rmi,
        Save(save::Arguments) => Save,
        Tag(tag::Arguments) => Tag,
        Untag(untag::Arguments) => Untag,
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
        Prune(prune::ContainerArguments) => ContainerPrune,
        Rename(rename::Arguments) => Rename,
        #[command(visible_alias = "remove")]
        Rm(rm::Arguments) => Rm,
        #[command(subcommand)]
        Snapshot(Snapshot) => ContainerSnapshot,
    }

    /// Keep states of containers
    Snapshot {
        Create(snapshot::Arguments) => Snapshot,
        #[command(visible_alias = "list")]
        Ls(snapshot::ListArguments) => Snapshots,
        #[command(visible_alias = "remove")]
        Rm(snapshot::RemoveArguments) => ContainerSnapshotRm,
        Undo(undo::Arguments) => Undo,
    }

    /// Look at the machine and the store
    System {
        Df(df::Arguments) => SystemDf,
        Info(version::InfoArguments) => Info,
        Prune(prune::SystemArguments) => SystemPrune,
    }

    /// Look at manifests in registries
    Manifest {
        Inspect(manifest::Arguments) => ManifestInspect,
    }
}
