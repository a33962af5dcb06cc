//! Checking the store and mending it, from registries too.
//!
//! What is small is looked at first, then documents and indexes, then contents: what a later part is
//! held against was mended before. What one part of the store cannot mend itself is fetched again from
//! where it came, one layer after the other, and what nobody has is set apart.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::{DiffId, Digest};
use crate::image::{CONFIG_LIMIT_BYTES, Descriptor, Reference};
use crate::service::error::{Error, Result};
use crate::service::{Event, Strata};
use crate::store::fsck::{Check, CheckScope, Fault, Item, Outcome, Part};
use crate::store::{Store, in_parallel, read_limited};
use crate::sys;

/// What to check, and how.
#[derive(Clone, Debug, Default)]
pub struct FsckRequest {
    /// Only what this image needs.
    pub image: Option<String>,
    /// Mend what can be mended.
    pub repair: bool,
    /// Make the tar of every layer, too.
    pub deep: bool,
    /// From the beginning, also if an earlier check was interrupted.
    pub anew: bool,
}

/// Something that was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The file, from the root of the store.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// The images that it touches.
    pub images: Vec<String>,
    /// The containers that it touches.
    pub containers: Vec<String>,
    /// What became of it.
    pub state: FindingState,
}

/// What became of something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingState {
    /// Nothing was to be mended.
    Found,
    /// It was mended: how.
    Mended(String),
    /// It was not: what to do.
    Left(String),
    /// It does no harm; what was done, if something was to be.
    Harmless(Option<String>),
}

/// What a check has found in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckSummary {
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that an interrupted check had read before.
    pub passed_over: u64,
    /// What was wrong.
    pub faults: u64,
    /// What of it was mended.
    pub mended: u64,
    /// What was found that does no harm.
    pub harmless: u64,
}

/// What a check does with what it finds.
struct Run<'a> {
    strata: &'a Strata,
    request: &'a FsckRequest,
    visit: &'a mut dyn FnMut(&Finding),
    summary: FsckSummary,
    /// Layers that were set apart earlier: what they lack is looked for when all else was mended.
    apart: Vec<Fault>,
    is_last: bool,
}

impl Strata {
    /// Opens a store that may be damaged, to check it. None is made.
    pub fn open_to_check(
        root: &std::path::Path,
        options: crate::registry::Options,
        progress: std::sync::Arc<dyn crate::service::Progress>,
    ) -> Result<Self> {
        let store = Store::open_to_check(root)?;
        let limits = crate::service::Limits::default();
        Ok(Self { store, options, registry: std::sync::Arc::default(), progress, limits })
    }

    /// Checks the store, or what one image needs of it, and shows all that is wrong to `visit`.
    pub fn fsck(
        &self,
        request: &FsckRequest,
        visit: &mut dyn FnMut(&Finding),
    ) -> Result<FsckSummary> {
        let image = request.image.as_deref().map(|name| self.find_manifest(name)).transpose()?;
        let mut check = self.store.check(CheckScope { image, anew: request.anew })?;
        let user = sys::effective_ids().0;
        if request.repair && user != check.owner() {
            return Err(Error::OthersStore { owner: check.owner(), user });
        }
        let (summary, apart, is_last) = (FsckSummary::default(), Vec::new(), false);
        let mut run = Run { strata: self, request, visit, summary, apart, is_last };
        check.learn()?;
        let records = check.records()?;
        run.settle(&mut check, records)?;
        check.learn()?;
        run.documents(&mut check)?;
        let contents = check.contents()?;
        let found = run.examine(&check, &contents)?;
        run.settle(&mut check, found)?;
        run.is_last = true;
        let apart = std::mem::take(&mut run.apart);
        run.settle(&mut check, apart)?;
        if request.deep {
            let tars = check.tars()?;
            let found = run.examine(&check, &tars)?;
            run.settle(&mut check, found)?;
        }
        run.summary.passed_over = check.passed_over();
        check.finish()?;
        Ok(run.summary)
    }

    /// Returns the manifest of an image that may be damaged.
    fn find_manifest(&self, text: &str) -> Result<Digest> {
        if let Ok(reference) = text.parse::<Reference>()
            && let Some(found) = self.find_named(&reference)?
        {
            return Ok(found.manifest);
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let all = self.store.references()?.into_iter().map(|(_, to)| to.manifest);
        let all = all.chain(self.store.containers()?.into_iter().map(|c| c.manifest));
        let damaged: HashSet<_> = all
            .filter(|manifest| self.store.image(*manifest).is_err())
            .filter(|manifest| manifest.hex().starts_with(prefix))
            .collect();
        match damaged.len() {
            0 => Ok(self.find_image(text)?.0.digest),
            1 => damaged.into_iter().next().ok_or_else(|| Error::NoImage(text.to_owned())),
            several => Err(Error::Ambiguous(text.to_owned(), several)),
        }
    }

    /// Fetches a layer again from where it came; returns from where it was.
    ///
    /// # Errors
    /// The last of the reasons why it was had from nowhere, if there was anywhere to ask.
    fn fetch_layer_again(&self, check: &Check, layer: DiffId) -> Result<Option<String>> {
        let mut failed = Ok(None);
        for source in check.sources_of(layer) {
            let blob = Descriptor::new(&source.media_type, source.digest, source.size);
            for repository in &source.repositories {
                let reference: Reference = repository.parse()?;
                match self.fetch_layer(&reference, &blob, layer) {
                    Ok(()) => return Ok(Some(repository.clone())),
                    Err(error) => failed = Err(error),
                }
            }
        }
        failed
    }

    /// Fetches a manifest or a configuration again; returns from where it was.
    fn fetch_blob_again(&self, check: &Check, blob: Digest) -> Result<Option<String>> {
        let mut failed = Ok(None);
        for (repository, config) in check.sources_of_blob(blob) {
            let reference: Reference = repository.parse()?;
            match self.fetch_document(&reference, blob, config.as_ref()) {
                Ok(bytes) if check.put_blob(blob, &bytes)? => return Ok(Some(repository)),
                Ok(_) => {}
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    fn fetch_document(
        &self,
        repository: &Reference,
        blob: Digest,
        config: Option<&Descriptor>,
    ) -> Result<Vec<u8>> {
        match config {
            Some(config) => {
                let reader = self.registry()?.blob(repository, config, 0)?;
                Ok(read_limited(reader, CONFIG_LIMIT_BYTES)?)
            }
            None => Ok(self.registry()?.manifest(repository, blob)?.bytes),
        }
    }
}

impl Run<'_> {
    /// Checks documents and indexes. With a document that was mended others are known to be needed.
    fn documents(&mut self, check: &mut Check) -> Result<()> {
        let mut done = HashSet::new();
        loop {
            let mut items = check.documents()?;
            items.retain(|item| done.insert(item.name()));
            if items.is_empty() {
                return Ok(());
            }
            let found = self.examine(check, &items)?;
            check.learn_of(&found);
            self.settle(check, found)?;
            check.learn()?;
        }
    }

    /// Reads through items, as many at once as there are processors. Returns what is wrong.
    fn examine(&mut self, check: &Check, items: &[Item]) -> Result<Vec<Fault>> {
        let total = items.iter().map(Item::size_bytes).sum();
        let done = AtomicU64::new(0);
        let progress = |len: u64| {
            let done = done.fetch_add(len, Ordering::Relaxed) + len;
            self.strata.tell(Event::Checking { done, total });
        };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let found = in_parallel(items, threads, |item| check.examine(item, &progress))?;
        self.summary.files += items.len() as u64;
        self.summary.bytes += done.into_inner();
        self.strata.tell(Event::Checked);
        Ok(found.into_iter().flatten().collect())
    }

    /// Mends what was found, if that is wanted, and shows it.
    fn settle(&mut self, check: &mut Check, mut faults: Vec<Fault>) -> Result<()> {
        // What nobody is known to need may be needed by what is mended first.
        let order = |fault: &Fault| (order(&fault.part), fault.images.is_empty());
        faults.sort_by(|a, b| (order(a), &a.path).cmp(&(order(b), &b.path)));
        for fault in faults {
            if self.request.repair && matches!(fault.part, Part::Apart(_)) && !self.is_last {
                // What it lacks may be mended yet.
                self.apart.push(fault);
                continue;
            }
            let is_harmless = fault.part.is_harmless();
            // What records and documents say is known then.
            let tells_of_others = order(&fault).0 <= DOCUMENTS;
            let state = match (self.request.repair, &fault.part) {
                // It is made anew by every check.
                (_, Part::Checked) => FindingState::Mended("it was made anew".to_owned()),
                (false, _) if is_harmless => FindingState::Harmless(None),
                (false, _) => FindingState::Found,
                (true, _) => match self.mend(check, &fault) {
                    Outcome::Mended(how) | Outcome::Left(how) if is_harmless => {
                        FindingState::Harmless(Some(how))
                    }
                    Outcome::Mended(how) => FindingState::Mended(how),
                    Outcome::Left(what) => FindingState::Left(what),
                },
            };
            match &state {
                FindingState::Harmless(_) => self.summary.harmless += 1,
                FindingState::Mended(_) => {
                    self.summary.faults += 1;
                    self.summary.mended += 1;
                }
                FindingState::Found | FindingState::Left(_) => self.summary.faults += 1,
            }
            let Fault { path, problem, images, containers, .. } = fault;
            (self.visit)(&Finding { path, problem, images, containers, state });
            if self.request.repair && tells_of_others {
                check.learn()?;
            }
        }
        Ok(())
    }

    /// Mends one fault. That it cannot be done is no reason not to mend the others.
    fn mend(&self, check: &Check, fault: &Fault) -> Outcome {
        self.try_mend(check, fault).unwrap_or_else(|error| Outcome::Left(error.told()))
    }

    fn try_mend(&self, check: &Check, fault: &Fault) -> Result<Outcome> {
        if check.still(fault)?.is_none() {
            return Ok(Outcome::Mended("it was mended together with another".to_owned()));
        }
        if let Some(outcome) = check.mend(fault)? {
            return Ok(outcome);
        }
        let fetched = match &fault.part {
            Part::Blob(blob) => self.strata.fetch_blob_again(check, *blob),
            Part::Index(layer) | Part::Recipe(layer) | Part::Tar(layer) | Part::Apart(layer) => {
                self.strata.fetch_layer_again(check, *layer)
            }
            Part::Object(object) => self.fetch_object_again(check, *object),
            _ => Ok(None),
        };
        let why_not = match fetched {
            Ok(Some(from)) if check.still(fault)?.is_none() => {
                return Ok(Outcome::Mended(format!("it was fetched again from {from}")));
            }
            Ok(Some(from)) => Some(format!("what {from} has did not mend it")),
            Ok(None) => None,
            Err(error) => Some(format!("it was not fetched again ({})", error.told())),
        };
        Ok(match (check.give_up(fault)?, why_not) {
            (Outcome::Left(what), Some(why)) => Outcome::Left(format!("{why}; {what}")),
            (outcome, _) => outcome,
        })
    }

    /// Any layer that has an object brings it back, whichever image it is of.
    fn fetch_object_again(&self, check: &Check, object: Digest) -> Result<Option<String>> {
        let mut failed = Ok(None);
        for layer in check.layers_with(object) {
            match self.strata.fetch_layer_again(check, layer) {
                Ok(None) => {}
                Ok(from) => return Ok(from),
                Err(error) => failed = Err(error),
            }
        }
        failed
    }
}

const DOCUMENTS: u8 = 3;

/// Returns what is mended first: without documents nobody knows of layers, without these of chains.
const fn order(part: &Part) -> u8 {
    match part {
        Part::Directory => 0,
        Part::Format | Part::Permissions(_) | Part::Owner(_) => 1,
        Part::Blob(_) => DOCUMENTS,
        Part::Recipe(_) => 4,
        Part::Index(_) | Part::Apart(_) => 5,
        Part::Chain(_) => 6,
        _ => 2,
    }
}
