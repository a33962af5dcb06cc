//! From sources to layers: in a store, as directories, as one plain directory.
//!
//! Every layer goes the way that a pulled one goes, through a tar into the store; its directory is
//! written from what the store has then. So all drivers show what was in the one tar.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bench::{self, Entry, Fixture, FixtureKind, Fixtures, LAYER_COUNTS, Size, known_files};
use crate::digest::DiffId;
use crate::image::{Descriptor, ImageConfig, OCI_LAYER, Platform};
use crate::service::bench::BenchSource;
use crate::service::bench::made::{Big, Deep, Wide};
use crate::service::bench::part::{Part, PartWriter};
use crate::service::bench::planter::{plant_image, plant_layer, settle};
use crate::service::bench::root::{HostProgram, RootLayer};
use crate::service::bench::sources;
use crate::service::commit::EMPTY_TAR;
use crate::service::copy::source::{HostTop, Skip, Visit, walk_host, walk_tar};
use crate::service::error::{Result, io_error};
use crate::service::{Quiet, RegistryOptions, Strata};
use crate::store::Stage;
use crate::sys;

/// Where the files of a layer come from.
pub(crate) trait Origin: Sync {
    /// Shows all of them, a directory before what is in it.
    fn show(&self, visit: &mut dyn Visit) -> Result<()>;
}

/// A directory of this machine.
pub(crate) struct HostTree<'a> {
    pub(crate) top: &'a Path,
    /// Directories that are left out.
    pub(crate) skip: &'a [PathBuf],
}

impl Origin for HostTree<'_> {
    fn show(&self, visit: &mut dyn Visit) -> Result<()> {
        let fd = sys::open_dir_path(self.top)?;
        let stat = sys::fstat(fd.as_fd())?;
        let mut skip = Skip::new();
        for path in self.skip {
            let stat = sys::fstat(sys::open_dir_path(path)?.as_fd())?;
            skip.insert((stat.dev, stat.ino), "is no part of the tree");
        }
        walk_host(HostTop { fd, stat, shown: self.top.display().to_string() }, &skip, visit)
    }
}

/// A layer of an image of another store.
struct ImageLayer<'a> {
    strata: &'a Strata,
    layer: DiffId,
}

impl Origin for ImageLayer<'_> {
    fn show(&self, visit: &mut dyn Visit) -> Result<()> {
        walk_tar(self.strata.store.layer_tar(self.layer)?, visit)
    }
}

/// Makes layers.
pub(crate) struct Layers<'a> {
    pub(crate) source: &'a BenchSource,
}

impl Fixtures for Layers<'_> {
    fn make(&self, kind: FixtureKind, dir: &Path, size: &Size) -> bench::Result<Fixture> {
        let made = match kind {
            FixtureKind::Tree => self.tree(dir, size),
            FixtureKind::Big => make(dir, &[(&Big(size), Part::WHOLE)]),
            FixtureKind::Wide => make(dir, &[(&Wide(size), Part::WHOLE)]),
            FixtureKind::Source => source(dir, size),
            FixtureKind::Deep => deep(dir, size),
        };
        let fixture = made.map_err(|error| bench::Error::Prepare(Box::new(error)))?;
        settle(dir).map_err(|error| bench::Error::Prepare(Box::new(error)))?;
        Ok(fixture)
    }
}

impl Layers<'_> {
    fn tree(&self, dir: &Path, size: &Size) -> Result<Fixture> {
        match self.source {
            BenchSource::Made => made_tree(dir, size),
            BenchSource::Directory(top) => {
                let skip = [dir.parent().unwrap_or(dir).to_owned()];
                let origin = HostTree { top, skip: &skip };
                let what = format!("the directory {}", top.display());
                with_shell(split_tree(dir, &[&origin], size, &what)?)
            }
            BenchSource::Image(strata, name) => {
                let (image, _, _lease) = strata.lease_image(name)?;
                let layers =
                    image.layers().iter().map(|layer| ImageLayer { strata, layer: *layer });
                let layers: Vec<_> = layers.collect();
                let origins: Vec<&dyn Origin> = layers.iter().map(|one| one as _).collect();
                with_shell(split_tree(dir, &origins, size, &format!("the image {name}"))?)
            }
        }
    }
}

fn made_tree(dir: &Path, size: &Size) -> Result<Fixture> {
    let program = HostProgram::shell();
    let layers: Vec<_> = (0..size.layers)
        .map(|number| {
            let program = program.as_ref().filter(|_| number == 0);
            RootLayer { size, number, program }
        })
        .collect();
    let parts: Vec<(&dyn Origin, Part)> =
        layers.iter().map(|layer| (layer as &dyn Origin, Part::WHOLE)).collect();
    let mut fixture = make(dir, &parts)?;
    fixture.program = program.map(|program| program.words);
    Ok(fixture)
}

/// Says that the shell of an image can be started, if it has one.
fn with_shell(mut fixture: Fixture) -> Result<Fixture> {
    let has = |path: &str| {
        fixture.plain.as_ref().is_some_and(|plain| plain.join(path).symlink_metadata().is_ok())
    };
    if has("bin/sh") || has("usr/bin/sh") {
        fixture.program = Some(["/bin/sh", "-c", ":"].map(Into::into).to_vec());
    }
    Ok(fixture)
}

/// Makes layers of these; the one with the most files is split where there are too few.
fn split_tree(dir: &Path, origins: &[&dyn Origin], size: &Size, what: &str) -> Result<Fixture> {
    let mut largest = (0, 0);
    for (at, origin) in origins.iter().enumerate() {
        let mut count = Count(0);
        origin.show(&mut count)?;
        largest = largest.max((count.0, at));
    }
    let wanted = size.layers.max(origins.len());
    let split = (wanted - origins.len()) as u64 + 1;
    let mut parts = Vec::new();
    for (at, origin) in origins.iter().enumerate() {
        let of = if at == largest.1 { split } else { 1 };
        parts.extend((0..of).map(|number| (*origin, Part { number, of })));
    }
    let mut fixture = make(dir, &parts)?;
    if split > 1 {
        let layers = if origins.len() == 1 { "layer" } else { "layers" };
        fixture.notes.push(format!(
            "{what} has {} {layers}; the largest was split into {split}, so that there are {}",
            origins.len(),
            fixture.layers.len()
        ));
    }
    Ok(fixture)
}

/// Counts files.
struct Count(u64);

impl Visit for Count {
    fn file(
        &mut self,
        _: &crate::layer::TarMeta,
        _: Option<&[u8]>,
        _: &mut dyn crate::service::copy::source::Content,
    ) -> Result<()> {
        self.0 += 1;
        Ok(())
    }

    fn left_out(&mut self, _: &[u8], _: &str) {}
}

fn source(dir: &Path, size: &Size) -> Result<Fixture> {
    let place = dir.join("sources");
    let sources = sources::make(&place, size)?;
    let origin = HostTree { top: &sources.top, skip: &[] };
    let fixture = make(dir, &[(&origin, Part::WHOLE)])?;
    let top = sources.top.display().to_string();
    fs::remove_dir_all(&sources.top).map_err(io_error("remove", top))?;
    Ok(Fixture {
        archive: Some(sources.archive),
        notes: sources.no_history.into_iter().collect(),
        ..fixture
    })
}

fn deep(dir: &Path, size: &Size) -> Result<Fixture> {
    let layers: Vec<_> = (0..size.most_layers).map(|layer| Deep { size, layer }).collect();
    let parts: Vec<(&dyn Origin, Part)> =
        layers.iter().map(|layer| (layer as &dyn Origin, Part::WHOLE)).collect();
    let mut place = Place::new(dir)?;
    place.publish(&parts)?;
    for count in LAYER_COUNTS.into_iter().filter(|count| *count <= layers.len()) {
        place.image(count)?;
    }
    place.plant_layers()?;
    // No plain copy of it is measured; and no layer takes anything away from those below.
    let mut files: BTreeMap<PathBuf, Entry> = BTreeMap::new();
    for layer in &place.fixture.layers {
        files.extend(known_files(layer)?.into_iter().map(|file| (file.path.clone(), file)));
    }
    place.fixture.files = files.into_values().collect();
    Ok(place.fixture)
}

/// Makes a fixture with one image, of all layers.
fn make(dir: &Path, parts: &[(&dyn Origin, Part)]) -> Result<Fixture> {
    let mut place = Place::new(dir)?;
    place.publish(parts)?;
    let name = place.image(place.published.len())?;
    place.plant_layers()?;
    let plain = match &place.fixture.layers[..] {
        [only] => only.clone(),
        _ => {
            let plain = dir.join("plain");
            plant_image(&place.strata, &name, &plain)?;
            plain
        }
    };
    place.fixture.files = known_files(&plain)?;
    place.fixture.plain = Some(plain);
    Ok(place.fixture)
}

/// Where a fixture is made.
struct Place<'a> {
    dir: &'a Path,
    strata: Strata,
    stage: Stage,
    /// The layers and the lengths of their tars.
    published: Vec<(DiffId, u64)>,
    fixture: Fixture,
}

impl<'a> Place<'a> {
    fn new(dir: &'a Path) -> Result<Self> {
        let store = dir.join("store");
        let strata = Strata::open(&store, RegistryOptions::default(), Arc::new(Quiet))?;
        let stage = strata.store.stage()?;
        let fixture = Fixture { store, ..Fixture::default() };
        Ok(Self { dir, strata, stage, published: Vec::new(), fixture })
    }

    /// Makes layers in the store; those that would be empty are left out.
    fn publish(&mut self, parts: &[(&dyn Origin, Part)]) -> Result<()> {
        for (origin, part) in parts {
            let unpacked = self.strata.pack_into(&mut self.stage, |out, _| {
                let mut writer = PartWriter::new(out, *part);
                origin.show(&mut writer)?;
                writer.finish().map(drop)
            })?;
            if unpacked.tar_len == EMPTY_TAR {
                self.stage.discard_layer()?;
                continue;
            }
            self.stage.keep_layer(&unpacked)?;
            self.published.push((unpacked.diff_id, unpacked.tar_len));
        }
        let mut layers: Vec<_> = self.published.iter().map(|(layer, _)| *layer).collect();
        layers.sort_unstable();
        layers.dedup();
        Ok(self.stage.publish_layers(&layers)?)
    }

    /// Makes an image of the lowest layers and returns its name.
    fn image(&mut self, count: usize) -> Result<String> {
        let host = Platform::host();
        let mut config =
            ImageConfig { architecture: host.architecture, os: host.os, ..ImageConfig::default() };
        let mut layers = Vec::new();
        for (layer, len) in &self.published[..count] {
            config.rootfs.diff_ids.push(*layer);
            layers.push(Descriptor::new(OCI_LAYER, layer.0, *len));
        }
        let name = format!("bench:{count}");
        let reference = name.parse()?;
        self.strata.add_image(&mut self.stage, layers, config, None, Some(&reference))?;
        self.fixture.images.insert(count, name.clone());
        Ok(name)
    }

    fn plant_layers(&mut self) -> Result<()> {
        let top = self.dir.join("l");
        fs::create_dir(&top).map_err(io_error("make", top.display().to_string()))?;
        for (at, (layer, _)) in self.published.iter().enumerate() {
            let dir = top.join(at.to_string());
            plant_layer(&self.strata, *layer, &dir)?;
            self.fixture.layers.push(dir);
        }
        Ok(())
    }
}
