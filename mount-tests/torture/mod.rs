//! The program is killed, loses its power, or is refused by the disk, at every call that changes a file.
//!
//! What the tests stand on: `trace` stops a program at its `calls`, each of which changes a `target`;
//! `sample` chooses among them. `checked` looks at a store from outside, `walk` at one in which a command
//! was interrupted; a `scene` is a mount in which a `work` is done. `disk` is one that loses its power,
//! `volume` a file system on it, and `cut` cuts the power.
//!
//! The tests: `commands` are killed, and `server`, the server of a mount. `power` is cut while commands
//! work, `power_mount` while a program works in a mount. `refusals` has calls that fail, `full` real disks
//! without room, `room` what disks give back, `live` containers that are looked at while they are changed,
//! `beside` commands that are stopped while others work.
//!
//! A test looks at some of the points, the same ones each time if no other seed is given; with
//! `STRATA_TORTURE=all` at all of them (`scripts/torture`).

mod beside;
mod calls;
mod checked;
mod commands;
mod cut;
mod disk;
mod full;
mod live;
mod power;
mod power_mount;
mod refusals;
mod room;
mod sample;
mod scene;
mod server;
mod target;
mod trace;
mod volume;
mod walk;
mod work;
