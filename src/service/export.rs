//! Exporting: what a container or image shows, as one tar.

use std::io::Write;

use crate::service::error::Result;
use crate::service::pack::{Packer, Target};
use crate::service::{Error, Event, Strata};

impl Strata {
    /// Writes the tree of a container, or of an image, as a tar.
    pub fn export(&self, what: &str, out: impl Write) -> Result<()> {
        let (overlay, _lease) = match self.find_container(what) {
            Ok(container) => {
                let (image, lease) = self.lease_base(&container)?;
                (self.inspect_container(&container, &image)?, lease)
            }
            Err(Error::NoContainer(_)) => {
                let (image, _, lease) = self.lease_image(what).map_err(|error| match error {
                    Error::NoImage(_) => Error::NoContainer(what.to_owned()),
                    other => other,
                })?;
                (self.read_only(&image)?, lease)
            }
            Err(error) => return Err(error),
        };
        let mut skipped = |path| {
            let text = format!("{path} is a socket, which a tar cannot hold: left out");
            self.tell(Event::Warning(text));
        };
        let mut packer = Packer::new(out, Target::Tree, None, &mut skipped);
        packer.tree(&overlay)?;
        let mut out = packer.finish()?;
        out.flush().map_err(crate::service::error::io_error("write", "the tar"))
    }
}
