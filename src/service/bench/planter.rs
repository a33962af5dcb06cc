//! Layers as directories, as overlay drivers take them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::bench::known_files;
use crate::digest::DiffId;
use crate::layer::whiteout;
use crate::service::copy::folder::{Folder, Owners};
use crate::service::copy::source::{Visit, walk_tar, walk_tree};
use crate::service::copy::write::{Owner, Writer};
use crate::service::error::{Result, io_error};
use crate::service::{Strata, runs_as_root};
use crate::sys::{self, SetXattr, XattrTarget, mode};

/// What the kernel's overlayfs, and every driver that reads its layers, takes for an opaque directory.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Writes a layer of a store into a directory, which is made.
pub(crate) fn plant_layer(strata: &Strata, layer: DiffId, dir: &Path) -> Result<()> {
    write_into(dir, &mut |writer| walk_tar(strata.store.layer_tar(layer)?, writer))?;
    // Without privilege there is no device: fuse-overlayfs takes the markers as they are.
    if runs_as_root() { mark(dir) } else { Ok(()) }
}

/// Writes what an image shows into a directory, which is made.
pub(crate) fn plant_image(strata: &Strata, name: &str, dir: &Path) -> Result<()> {
    let (image, _, _lease) = strata.lease_image(name)?;
    let overlay = strata.read_only(&image)?;
    write_into(dir, &mut |writer| walk_tree(overlay.root(), writer))
}

fn write_into(dir: &Path, write: &mut dyn FnMut(&mut dyn Visit) -> Result<()>) -> Result<()> {
    let shown = dir.display().to_string();
    fs::create_dir(dir).map_err(io_error("make", &shown))?;
    let owner = if runs_as_root() { Owner::Source } else { Owner::Caller };
    let place = Folder { root: sys::open_dir_path(dir)?, owners: Owners::IfAllowed };
    let warn = |text: String| tracing::debug!("{text}");
    let mut writer = Writer::new(place, &[], None, owner, shown, &warn)?;
    write(&mut writer)?;
    writer.finish().map(drop)
}

/// Makes the kernel's whiteouts of the markers in a layer.
fn mark(dir: &Path) -> Result<()> {
    for file in known_files(dir)?.iter().filter(|file| file.is_file()) {
        let name = file.path.file_name().unwrap_or_default();
        let Some(gone) = name.as_bytes().strip_prefix(whiteout::PREFIX) else { continue };
        let marker = dir.join(&file.path);
        let parent = marker.parent().unwrap_or(dir);
        let parent = sys::open_dir_path(parent)?;
        sys::unlink(parent.as_fd(), name)?;
        if name.as_bytes() == whiteout::OPAQUE {
            let target = XattrTarget::Fd(parent.as_fd());
            sys::set_xattr(target, OPAQUE.as_ref(), b"y", SetXattr::Any)?;
        } else {
            let gone = std::ffi::OsStr::from_bytes(gone);
            sys::make_node(parent.as_fd(), gone, mode::CHARACTER, 0)?;
        }
    }
    Ok(())
}

/// Has everything that was written reach the disk, so that it is not written while something is measured.
pub(crate) fn settle(dir: &Path) -> Result<()> {
    let opened = File::open(dir).map_err(io_error("open", dir.display().to_string()))?;
    Ok(sys::sync_fs(&opened)?)
}
