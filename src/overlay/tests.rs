//! What the tests of several files stand on.

use std::path::Path;

use crate::overlay::*;

/// Mounts `low` and `upper` of a folder: nothing is known of any file.
pub(crate) fn mounted(folder: &Path) -> Overlay {
    let (upper, work) = (folder.join("upper"), folder.join("work"));
    let lower = LowerDirs {
        dirs: vec![folder.join("low")],
        data_only: Vec::new(),
        upper: Some(upper.clone()),
        user_marks: false,
        owners: Owners::Native,
        static_links: false,
        follow_redirects: true,
        links: Links::Kept,
    };
    let (sync, owners) = (Sync::Never, None);
    let dirs = UpperDirs { upper: &upper, work: &work, sync, owners, writes: Writes::ALL };
    loop {
        match Overlay::writable(Box::new(DirsLower::open(&lower).unwrap()), dirs) {
            // A process that another test begins has a copy of the lock until it runs.
            Err(Error::InUse(_)) => std::thread::yield_now(),
            mounted => return mounted.unwrap(),
        }
    }
}
