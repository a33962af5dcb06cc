//! Layers that are made for the purpose, and the small words that all of them are made with.

use crate::bench::{BIG, Filler, LAYER_MARKS, Size, WIDE};
use crate::layer::{Kind, TarMeta};
use crate::service::bench::fixtures::Origin;
use crate::service::copy::source::{Content, Empty, Visit};
use crate::service::error::Result;
use crate::sys::Time;

/// When files that are made were changed last.
const CHANGED: Time = Time { secs: 1_700_000_000, nanos: 0 };

/// Returns what there is to say of a file of root's.
pub(crate) fn meta(path: &str, kind: Kind, mode: u32) -> TarMeta {
    TarMeta { mtime: CHANGED, ..TarMeta::new(path, kind, mode) }
}

/// Shows a directory.
pub(crate) fn directory(path: &str, visit: &mut dyn Visit) -> Result<()> {
    visit.file(&meta(path, Kind::Directory, 0o755), None, &mut Empty)
}

/// Shows a regular file of so many bytes, which follow from `seed`.
pub(crate) fn file(
    path: &str,
    mode: u32,
    size: u64,
    seed: &[u8],
    visit: &mut dyn Visit,
) -> Result<()> {
    let meta = TarMeta { size, ..meta(path, Kind::Regular, mode) };
    visit.file(&meta, None, &mut Filling { filler: Filler::of(seed), at: 0, size })
}

/// A content that is made.
struct Filling {
    filler: Filler,
    at: u64,
    size: u64,
}

impl Content for Filling {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        // All but the last piece are a multiple of eight.
        let whole = buffer.len() & !7;
        let len = whole.min(usize::try_from(self.size - self.at).unwrap_or(usize::MAX));
        let at = self.at;
        self.filler.fill(at, &mut buffer[..len]);
        self.at += len as u64;
        Ok((len > 0).then_some((at, len)))
    }
}

/// Two big files, and names to look up.
pub(crate) struct Big<'a>(pub(crate) &'a Size);

impl Origin for Big<'_> {
    fn show(&self, visit: &mut dyn Visit) -> Result<()> {
        directory("big", visit)?;
        for (path, size) in [(BIG.read, self.0.big_bytes), (BIG.copied, self.0.copied_bytes)] {
            file(path, 0o644, size, path.as_bytes(), visit)?;
        }
        directory(BIG.names, visit)?;
        for number in 0..BIG.name_count {
            file(&format!("{}/name-{number:05}", BIG.names), 0o644, 0, b"", visit)?;
        }
        Ok(())
    }
}

/// A directory with very many entries.
pub(crate) struct Wide<'a>(pub(crate) &'a Size);

impl Origin for Wide<'_> {
    fn show(&self, visit: &mut dyn Visit) -> Result<()> {
        directory(WIDE, visit)?;
        (0..self.0.wide_entries).try_for_each(|number| {
            let path = format!("{WIDE}/entry-{number:06}.{}", number % 7);
            file(&path, 0o644, 0, b"", visit)
        })
    }
}

/// One layer of a tree of very many files below very many layers. The lowest has nearly all of them, as
/// a base image has; each of the others a file of its own and one that all of them change.
pub(crate) struct Deep<'a> {
    pub(crate) size: &'a Size,
    pub(crate) layer: usize,
}

const IN_EACH: u64 = 30;
const DIRECTORIES_IN_EACH: u64 = 40;

impl Origin for Deep<'_> {
    fn show(&self, visit: &mut dyn Visit) -> Result<()> {
        directory(LAYER_MARKS, visit)?;
        let own = format!("{LAYER_MARKS}/{}", self.layer);
        file(&own, 0o644, 100, own.as_bytes(), visit)?;
        directory("changed", visit)?;
        file("changed/often", 0o644, 100, own.as_bytes(), visit)?;
        if self.layer > 0 {
            return Ok(());
        }
        directory("deep", visit)?;
        for number in 0..self.size.deep_entries / (IN_EACH + 1) {
            let above = format!("deep/{:04}", number / DIRECTORIES_IN_EACH);
            if number % DIRECTORIES_IN_EACH == 0 {
                directory(&above, visit)?;
            }
            let dir = format!("{above}/directory-{number:05}");
            directory(&dir, visit)?;
            for name in 0..IN_EACH {
                let path = format!("{dir}/file-{name:02}.txt");
                file(&path, 0o644, 40 + name, path.as_bytes(), visit)?;
            }
        }
        Ok(())
    }
}
