//! Exporting: what a container or image shows, as one tar.

use std::io::Write;

use crate::service::error::Result;
use crate::service::pack::{Packer, Target};
use crate::service::{Error, Event, Strata};

impl Strata {
    /// Writes the tree of a container, or of an image, as a tar.
    pub fn export(&self, what: &str, out: impl Write) -> Result<()> {
        let tree = self.open_tree(what).map_err(|error| match error {
            Error::NoObject(name) => Error::NoContainer(name),
            other => other,
        })?;
        let mut skipped = |path| {
            let text = format!("{path} is a socket, which a tar cannot hold: left out");
            self.tell(Event::Warning(text));
        };
        let mut packer = Packer::new(out, Target::Tree, None, &mut skipped);
        packer.tree(&tree.overlay)?;
        let mut out = packer.finish()?;
        out.flush().map_err(crate::service::error::io_error("write", "the tar"))
    }
}
