//! What the mount tests stand on: a store and its mounts, an ordinary user, a registry, trees as
//! they are seen from outside.

mod fixture;
mod place;
mod program;
mod registry;
mod session;
mod tree;
mod user;

pub(crate) use fixture::{debian, fixtures, script};
pub(crate) use place::everywhere;
pub(crate) use registry::{Registry, succeed};
pub(crate) use session::{Session, mounts_below, run};
pub(crate) use tree::{Tree, differences, tree_of};
pub(crate) use user::Who;
