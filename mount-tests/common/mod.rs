//! What the mount tests stand on: a store and its mounts, an ordinary user, a registry and its
//! faults, images made by hand, trees as they are seen from outside, an end to what waits for ever.

mod crafted;
mod damage;
pub(crate) mod deadline;
mod faults;
mod fixture;
mod http;
mod peak;
mod place;
mod podman;
mod program;
mod refusal;
mod registry;
pub(crate) mod secured;
mod session;
mod setting;
mod tree;
mod user;

pub(crate) use crafted::{Crafted, Packing, noise, small};
pub(crate) use damage::{damage, object_of, overwrite, stored};
pub(crate) use faults::{Fault, Faults};
pub(crate) use fixture::{debian, fixtures, plain_debian, script};
pub(crate) use http::base64;
pub(crate) use peak::measured;
pub(crate) use place::{Layer, Lower, Place, everywhere, large};
pub(crate) use podman::Podman;
pub(crate) use refusal::refused;
pub(crate) use registry::{Registry, succeed};
pub(crate) use session::{
    Output, Session, bytes_of, children_of, mounts_below, no_beginning, run, run_alone, spawn,
};
pub(crate) use setting::{Dice, setting};
pub(crate) use tree::{Tree, differences, forget_times, tree_of};
pub(crate) use user::Who;
