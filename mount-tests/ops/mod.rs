//! Every operation of a file system, with its file in the lower layer, the upper one and both.

mod attr;
mod content;
mod create;
mod dir;
mod mode;
mod open;
mod readdir;
mod rename;
mod size;
mod sync;
mod times;
mod xattr;
