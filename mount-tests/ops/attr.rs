//! Changing attributes.

use std::os::unix::fs::{MetadataExt, chown};

use nix::errno::Errno;

use crate::common::everywhere;

#[test]
fn chown_changes_the_owner_and_keeps_the_content() {
    everywhere(|place| {
        let before = place.stat("file");
        let done = chown(place.path("file"), Some(1234), Some(5678));
        if place.may_chown() {
            done.unwrap();
            let after = place.stat("file");
            assert_eq!((after.uid(), after.gid()), (1234, 5678));
            assert_eq!(after.mode(), before.mode());
            assert_eq!(after.ino(), before.ino());
            assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
            assert_eq!(place.stat("hard").uid(), 1234);
        } else {
            assert_eq!(done.unwrap_err().raw_os_error(), Some(Errno::EPERM as i32));
        }
        assert_eq!(place.text("hard"), "content\n");
    });
}
