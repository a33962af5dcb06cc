//! The registry room: the OCI distribution protocol, both directions.
//!
//! Resolve a reference, read and write blobs and manifests, list tags. The room hands back bytes
//! and readers; it must not know the store, what a manifest says, or the terminal.
//!
//! Outside it is synchronous: a call blocks its thread, and a program makes parallel calls from
//! parallel threads. Inside, `reqwest` speaks HTTP on a tokio runtime of two threads, and neither
//! of both names appears in the public interface.
//!
//! Reading order: `hosts` (the loop of every request) → `session` (one registry) → `manifest`,
//! `tags`, `blob`, `upload` (the requests) → `refusal`, `fault` (what an answer means).

mod blob;
mod challenge;
mod client;
mod credentials;
mod document;
mod download;
mod error;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod grant;
mod host;
mod hosts;
#[cfg(test)]
mod lies;
mod login;
mod manifest;
mod options;
mod refusal;
mod retry;
mod runtime;
mod session;
mod tags;
#[cfg(test)]
mod testserver;
mod tls;
mod token;
mod upload;

use std::fmt;
use std::io;
use std::io::Read;
use std::sync::Arc;

use crate::digest::Digest;
use crate::image::Descriptor;
use crate::image::Reference;
use crate::registry::hosts::Hosts;
use crate::registry::upload::Upload;

pub use crate::registry::blob::BlobReader;
pub use crate::registry::download::Download;
pub use crate::registry::download::public_url;
pub use crate::registry::error::Error;
pub use crate::registry::error::Result;
pub use crate::registry::error::Unreachable;
pub use crate::registry::login::Kept;
pub use crate::registry::login::Server;
pub use crate::registry::login::base64;
pub use crate::registry::login::forget as forget_login;
pub use crate::registry::login::keep as keep_login;
pub use crate::registry::login::setting as docker_setting;
pub use crate::registry::manifest::RawManifest;
pub use crate::registry::options::Options;
pub use crate::registry::upload::Mounted;

/// All registries, as one program run sees them: logins, connections and tokens are kept in it.
///
/// A clone is the same registries. Every method may be called from many threads at once; each
/// contacts the host of the reference it gets.
#[derive(Clone)]
pub struct Registry {
    hosts: Arc<Hosts>,
}

impl Registry {
    /// Starts the room. No registry is contacted before the first request to it.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub fn new(options: Options) -> Result<Self> {
        Ok(Self { hosts: Arc::new(Hosts::new(options)?) })
    }

    /// Asks a registry whether it takes a user and a password.
    ///
    /// # Errors
    /// [`Error::LoginRefused`], besides those of every request.
    pub fn check_login(&self, server: &Server, user: &str, password: &str) -> Result<()> {
        self.hosts.check_login(server.host(), user, password)
    }

    /// Asks a registry whether it takes the login that is kept for it, and returns its user; `None`
    /// where none is kept.
    pub fn check_kept_login(&self, server: &Server) -> Result<Option<String>> {
        self.hosts.check_kept_login(server.host())
    }

    /// Makes the first contact with the registry of a repository, unless that was before.
    pub fn reach(&self, repository: &Reference) -> Result<()> {
        self.hosts.reach(repository)
    }

    /// Returns what the tag or digest of `reference` names; a bare name means `latest`.
    ///
    /// The bytes match the digest in `reference`, and the one that the registry announces.
    pub fn resolve(&self, reference: &Reference) -> Result<RawManifest> {
        manifest::resolve(&self.hosts, reference)
    }

    /// Returns the manifest with `digest` from the repository.
    pub fn manifest(&self, repository: &Reference, digest: Digest) -> Result<RawManifest> {
        manifest::resolve(&self.hosts, &repository.with_digest(digest))
    }

    /// Returns all tags of the repository, in the order of the registry.
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>> {
        tags::list(&self.hosts, repository)
    }

    /// Opens a blob of the repository at byte `offset`.
    ///
    /// The reader checks the length; the digest is for the caller to check.
    pub fn blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<BlobReader> {
        BlobReader::open(Arc::clone(&self.hosts), repository, descriptor, offset)
    }

    /// Opens what is under a URL that is no registry's.
    pub fn download(&self, url: &str) -> Result<Download> {
        Download::open(Arc::clone(&self.hosts), url)
    }

    /// Says whether the repository has the blob.
    pub fn has_blob(&self, repository: &Reference, digest: Digest) -> Result<bool> {
        blob::exists(&self.hosts, repository, digest)
    }

    /// Takes a blob over from another repository of the same registry, where the registry does so.
    pub fn mount_blob(
        &self,
        repository: &Reference,
        from: &Reference,
        digest: Digest,
    ) -> Result<Mounted> {
        upload::mount(&self.hosts, repository, from, digest)
    }

    /// Uploads a blob of `size` bytes to the repository.
    ///
    /// `open` is called once for each attempt and begins at the first byte. `progress` is told how
    /// many bytes of the attempt have gone out; a new attempt starts again at 0.
    ///
    /// # Errors
    /// Besides those of every request: the blob is empty, cannot be read or has another size.
    pub fn push_blob(
        &self,
        repository: &Reference,
        digest: Digest,
        size: u64,
        open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        upload::push(&self.hosts, repository, &Upload { digest, size, open, progress })
    }

    /// Puts a manifest under the tag of `reference`, or under its digest where there is no tag.
    ///
    /// Returns the digest of `bytes`.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest> {
        manifest::push(&self.hosts, reference, media_type, bytes)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_shared_and_a_reader_moves_between_threads() {
        const fn shared<T: Clone + Send + Sync>() {}
        const fn moved<T: Send>() {}
        const { shared::<Registry>() }
        const { moved::<BlobReader>() }
    }
}
