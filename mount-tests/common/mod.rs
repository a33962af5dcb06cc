//! What the mount tests stand on: a store and its mounts, an ordinary user, a registry, trees as
//! they are seen from outside.

mod place;
mod program;
mod session;
mod tree;
mod user;

pub(crate) use place::everywhere;
pub(crate) use session::Session;
pub(crate) use tree::{Tree, differences, tree_of};
pub(crate) use user::Who;
