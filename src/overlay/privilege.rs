//! Set-uid and set-gid: what a change of the content takes away.
//!
//! The kernel's rules (`setattr_should_drop_suidgid`): set-uid always; set-gid if the group may execute
//! the file, or if who changes it is not in the group. Who has the capability `CAP_FSETID` takes nothing
//! away. Capabilities of the file (`security.capability`) the kernel removes itself, by name.

use crate::overlay::error::Result;
use crate::overlay::place::Place;
use crate::overlay::{Ino, Overlay, SetAttr};
use crate::sys::mode;

const GROUP_EXECUTES: u32 = 0o010;

impl Overlay {
    /// Takes set-uid and set-gid away from a file whose content somebody without the capability is about
    /// to change; `is_in_group` tells whether they are in a group. Tells whether there was anything to
    /// take away.
    pub fn drop_set_ids(&self, ino: Ino, is_in_group: impl FnOnce(u32) -> bool) -> Result<bool> {
        let place = self.place(ino)?;
        let version = match &place {
            Place::Lower(_) => None,
            Place::Node(node) => {
                let state = node.state.lock();
                if state.has_no_set_ids {
                    return Ok(false);
                }
                Some(state.dir.version)
            }
        };
        let attr = self.attr_of(&place)?;
        let has = attr.mode & mode::PERMISSIONS;
        if let (Place::Node(node), Some(version), 0) = (&place, version, has & mode::SET_IDS) {
            let mut state = node.state.lock();
            state.has_no_set_ids = state.dir.version == version;
        }
        let mut kept = has & !mode::SET_UID;
        if has & mode::SET_GID != 0 && (has & GROUP_EXECUTES != 0 || !is_in_group(attr.gid)) {
            kept &= !mode::SET_GID;
        }
        if kept == has {
            return Ok(false);
        }
        self.setattr(ino, SetAttr { mode: Some(kept), ..SetAttr::default() })?;
        Ok(true)
    }
}
