//! Every operation of a file system, with its file in the lower layer, the upper one and both.

mod acl;
mod attr;
mod concurrent;
mod content;
mod copy_up;
mod create;
mod dir;
mod handles;
mod link;
mod locks;
mod mmap;
mod mode;
mod nameless;
mod names;
mod open;
mod readdir;
mod rename;
mod size;
mod special;
mod symlink;
mod sync;
mod times;
mod unlink;
mod xattr;
