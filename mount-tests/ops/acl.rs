//! POSIX access control lists.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;

use crate::common::{Place, Who, everywhere, refused};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// The user or group of an entry that is nobody's in particular.
const NONE: u32 = u32::MAX;
/// The ordinary user.
const NOBODY: u32 = 65_534;

/// Returns a list in the form of acl(5): version 2, then tag, permissions and user of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn for_nobody(permissions: u16, mask: u16) -> Vec<u8> {
    acl(&[
        (USER_OBJ, 6, NONE),
        (USER, permissions, NOBODY),
        (GROUP_OBJ, 4, NONE),
        (MASK, mask, NONE),
        (OTHER, 0, NONE),
    ])
}

fn set(place: &Place, name: &str, key: &str, value: &[u8]) -> std::io::Result<()> {
    xattr::set(place.path(name), key, value)
}

fn mode(place: &Place, name: &str) -> u32 {
    place.stat(name).mode() & 0o7777
}

#[test]
fn a_list_permits_and_shows_in_the_mode() {
    everywhere(|place| {
        // Without privilege the kernel does not check permissions, and lists are only kept.
        if place.who == Who::User {
            return;
        }
        let open = |name: &str| {
            let path = place.path(name);
            place.as_user(|| File::options().write(true).open(path))
        };
        for name in ["file", "large", "dir/child"] {
            assert_eq!(refused(open(name)), Errno::EACCES, "{name}");
            set(place, name, ACCESS, &for_nobody(6, 6)).unwrap();
            assert_eq!(mode(place, name), 0o660, "{name}");
            open(name).unwrap();
            let list = xattr::get(place.path(name), ACCESS).unwrap();
            assert_eq!(list, Some(for_nobody(6, 6)), "{name}");
            // The mask is what chmod changes of it.
            fs::set_permissions(
                place.path(name),
                std::os::unix::fs::PermissionsExt::from_mode(0o640),
            )
            .unwrap();
            assert_eq!(
                xattr::get(place.path(name), ACCESS).unwrap(),
                Some(for_nobody(6, 4)),
                "{name}"
            );
            assert_eq!(refused(open(name)), Errno::EACCES, "{name}");
            xattr::remove(place.path(name), ACCESS).unwrap();
            assert_eq!(xattr::get(place.path(name), ACCESS).unwrap(), None, "{name}");
        }
        let nonsense = acl(&[(OTHER, 7, NONE), (OTHER, 7, NONE)]);
        assert_eq!(refused(set(place, "file", ACCESS, &nonsense)), Errno::EINVAL);
        assert_eq!(refused(set(place, "file", DEFAULT, &for_nobody(6, 6))), Errno::EACCES);
        // A list that says no more than a mode is none.
        let plain = acl(&[(USER_OBJ, 6, NONE), (GROUP_OBJ, 0, NONE), (OTHER, 4, NONE)]);
        set(place, "file", ACCESS, &plain).unwrap();
        assert_eq!(mode(place, "file"), 0o604);
        assert_eq!(xattr::get(place.path("file"), ACCESS).unwrap(), None);
        assert_eq!(place.text("hard"), "content\n");
    });
}

#[test]
fn a_default_list_is_handed_down_in_place_of_the_umask() {
    everywhere(|place| {
        // Lists are not handed down in a mount without privilege.
        if place.who == Who::User {
            return;
        }
        fs::remove_file(place.path("dir/child")).unwrap();
        set(place, "dir", DEFAULT, &for_nobody(7, 7)).unwrap();
        fs::write(place.path("dir/new"), "").unwrap();
        fs::write(place.path("dir/child"), "").unwrap();
        fs::create_dir(place.path("dir/made")).unwrap();
        fs::create_dir(place.path("dir/made/below")).unwrap();
        std::os::unix::fs::symlink("x", place.path("dir/symlink")).unwrap();
        for name in ["dir/new", "dir/child"] {
            // The mask has what the maker wanted for the group: 0666 of it.
            let list = xattr::get(place.path(name), ACCESS).unwrap();
            assert_eq!(list, Some(for_nobody(7, 6)), "{name}");
            assert_eq!(mode(place, name), 0o660, "{name}");
        }
        for name in ["dir/made", "dir/made/below"] {
            let list = xattr::get(place.path(name), DEFAULT).unwrap();
            assert_eq!(list, Some(for_nobody(7, 7)), "{name}");
            let list = xattr::get(place.path(name), ACCESS).unwrap();
            assert_eq!(list, Some(for_nobody(7, 7)), "{name}");
        }
        assert_eq!(xattr::get(place.path("dir/sub"), DEFAULT).unwrap(), None);
        xattr::remove(place.path("dir"), DEFAULT).unwrap();
        fs::write(place.path("dir/plain"), "").unwrap();
        assert_eq!(mode(place, "dir/plain"), 0o644);
    });
}
