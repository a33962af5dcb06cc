//! What can go wrong between strata and a registry.
//!
//! Where docker has a text for the same fault, `Display` is that text, upper case and quotes
//! included: people search for it and scripts match it. Such a text holds its cause, so those
//! variants have no `source`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::digest::Digest;

/// The result of asking a registry.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a registry could not be reached at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nothing listens there.
    Refused,
    /// The name has no address.
    UnknownHost,
    /// No answer in time.
    TimedOut,
    /// Another fault of the network.
    Other,
}

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository has no such tag or digest.
    #[error("manifest for {reference} not found: manifest unknown: {message}")]
    ManifestUnknown {
        /// The image, as docker prints it.
        reference: String,
        /// What the registry says.
        message: String,
    },
    /// The registry has no such repository.
    #[error("repository {repository} not found: name unknown: {message}")]
    RepositoryUnknown {
        /// The repository, as docker prints it.
        repository: String,
        /// What the registry says.
        message: String,
    },
    /// The repository has no such blob.
    #[error("blob {digest} not found in {repository}: blob unknown to registry")]
    BlobUnknown {
        /// The repository, as docker prints it.
        repository: String,
        /// The blob.
        digest: Digest,
    },
    /// Reading is not allowed with the credentials at hand, or there is nothing to read.
    #[error(
        "pull access denied for {repository}, repository does not exist or may require \
         'docker login': denied: requested access to the resource is denied"
    )]
    PullDenied {
        /// The repository, as docker prints it.
        repository: String,
    },
    /// Writing is not allowed with the credentials at hand.
    #[error("denied: requested access to the resource is denied")]
    PushDenied {
        /// The registry.
        host: String,
        /// The repository, as docker prints it.
        repository: String,
    },
    /// The registry wants a login, or refuses the one it got.
    #[error("unauthorized: {message}: run '{login}' to use {repository}")]
    Unauthorized {
        /// The registry.
        host: String,
        /// The repository, as docker prints it.
        repository: String,
        /// What the registry says.
        message: String,
        /// The command that stores a login.
        login: String,
    },
    /// The registry limits how often it is asked, and strata has waited as long as it may.
    #[error("toomanyrequests: {message} (registry {host})")]
    TooManyRequests {
        /// The registry.
        host: String,
        /// What the registry says.
        message: String,
        /// When it wants to be asked again, where it says so.
        retry_after: Option<Duration>,
    },
    /// No connection could be made.
    #[error("Get \"{url}\": {reason}")]
    Connect {
        /// What was asked for.
        url: String,
        /// What kind of fault it is.
        unreachable: Unreachable,
        /// The fault, in docker's words.
        reason: String,
    },
    /// The connection is not trusted, or the other side does not speak TLS.
    #[error("Get \"{url}\": {reason}")]
    Tls {
        /// What was asked for.
        url: String,
        /// The fault, in docker's words.
        reason: String,
    },
    /// The connection broke.
    #[error("connection lost during {url}: {reason}")]
    Interrupted {
        /// What was asked for.
        url: String,
        /// How it broke.
        reason: String,
    },
    /// The registry answered with a status that says nothing more precise.
    #[error("received unexpected HTTP status: {status} from {url}: {message}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// What the registry says.
        message: String,
    },
    /// There is nothing under a URL, or nothing for whoever asks.
    #[error("failed to GET {url} with status {status}: {message}")]
    NotUnderUrl {
        /// What was asked for.
        url: String,
        /// The status: `404 Not Found`.
        status: String,
        /// What the server says.
        message: String,
    },
    /// A URL is none, or leads nowhere.
    #[error("{url} cannot be downloaded: {reason}")]
    Url {
        /// What was typed.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The registry does not follow the distribution specification.
    #[error("registry {host} does not follow the distribution protocol: {reason}")]
    Protocol {
        /// The registry.
        host: String,
        /// What it does.
        reason: String,
    },
    /// A manifest is not the one that was asked for.
    #[error("manifest of {reference} has digest {found}: expected {expected}")]
    DigestMismatch {
        /// The image, as docker prints it.
        reference: String,
        /// The digest that was asked for or announced.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// An answer that must fit into memory does not.
    #[error("answer from {url} is too large: expected at most {limit_bytes} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// An answer is not the JSON it should be.
    #[error("answer from {url} cannot be read")]
    Json {
        /// What was asked for.
        url: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A blob keeps ending too early.
    #[error("blob {digest} ended after {found_bytes} bytes: expected {expected_bytes} ({reason})")]
    Truncated {
        /// The blob.
        digest: Digest,
        /// Its size.
        expected_bytes: u64,
        /// How many bytes came, over all attempts.
        found_bytes: u64,
        /// How the last connection ended.
        reason: String,
    },
    /// A blob has more bytes than its descriptor says.
    #[error("blob {digest} has {found_bytes} bytes or more: expected {expected_bytes}")]
    TooLong {
        /// The blob.
        digest: Digest,
        /// Its size.
        expected_bytes: u64,
        /// How many bytes came before strata stopped reading.
        found_bytes: u64,
    },
    /// The blob to upload cannot be read.
    #[error("blob {digest} cannot be read for the upload")]
    Source {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The blob to upload does not have its size.
    #[error("blob {digest} has {found_bytes} bytes to upload: expected {expected_bytes}")]
    SourceLength {
        /// The blob.
        digest: Digest,
        /// Its size.
        expected_bytes: u64,
        /// How many bytes could be read.
        found_bytes: u64,
    },
    /// A certificate of a registry cannot be used.
    #[error("certificate {path:?} cannot be used: {reason}")]
    Certificate {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The machine trusts no certificate authority.
    #[error(
        "no certificate authorities found on this machine: install the package ca-certificates, \
         or set SSL_CERT_FILE"
    )]
    NoAuthorities,
    /// The file with the logins cannot be read.
    #[error("login file {path:?} cannot be read")]
    LoginFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The login for a registry cannot be had, though one is configured.
    #[error("login for {host} cannot be had from {path:?}: {reason}")]
    Login {
        /// The registry.
        host: String,
        /// The file that says where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no place for logins.
    #[error("there is nowhere to keep a login: neither DOCKER_CONFIG nor HOME is set")]
    NoLoginFile,
    /// A text names no registry.
    #[error("{0:?} is not the address of a registry; expected HOST or HOST:PORT")]
    ServerName(String),
    /// A credential helper did not do what it was asked.
    #[error("credential helper {helper}: {reason}")]
    Helper {
        /// The helper.
        helper: String,
        /// What it said.
        reason: String,
    },
    /// The registry does not take the login.
    #[error("login attempt to {url} failed with status: {status}")]
    LoginRefused {
        /// What was asked.
        url: String,
        /// The answer.
        status: String,
    },
    /// The HTTP client cannot be set up.
    #[error("HTTP client for {host} cannot be set up: {reason}")]
    Client {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The threads of the room cannot be started.
    #[error("threads for the network cannot be started")]
    Threads {
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Says whether the same request may succeed a moment later.
    pub(super) const fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Interrupted { .. } | Self::TooManyRequests { .. } => true,
            Self::Status { status, .. } => matches!(*status, 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Says whether there is no registry at all at that address.
    pub(super) const fn is_absent(&self) -> bool {
        let Self::Connect { unreachable, .. } = self else { return false };
        matches!(unreachable, Unreachable::Refused | Unreachable::UnknownHost)
    }

    /// Says whether the registry refused the credentials of the request.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized { .. } | Self::PullDenied { .. } | Self::PushDenied { .. }
        )
    }

    /// Returns how long the registry asks to wait.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    /// Wraps the error for `Read`: `downcast` gives it back.
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
