//! Uploads: put a blob into a repository, from another one of the same registry or from here.
//!
//! A blob goes up in one request (`POST`, then one `PUT` with the whole body): every registry takes
//! that, chunks not. The caller's thread reads and the runtime sends, with a few chunks between
//! them; an attempt that fails begins again at the first byte. What a failed attempt left at the
//! registry is the registry's to clean.

use std::io;
use std::io::Read;

use bytes::Bytes;
use futures_util::stream;
use reqwest::Body;
use reqwest::Method;
use reqwest::RequestBuilder;
use reqwest::Url;
use reqwest::header::CONTENT_LENGTH;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::LOCATION;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::digest::Digest;
use crate::image::Reference;
use crate::registry::Error;
use crate::registry::Result;
use crate::registry::document::Answer;
use crate::registry::document::SMALL_LIMIT_BYTES;
use crate::registry::document::fetch;
use crate::registry::fault::printable;
use crate::registry::fault::silent;
use crate::registry::grant::Grant;
use crate::registry::hosts::Hosts;
use crate::registry::refusal::Subject;
use crate::registry::token::Access;
use crate::registry::token::Scope;

const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_BETWEEN: usize = 4;
/// How much longer than a silent connection a registry may think about a whole blob: some move it
/// to another store before they answer.
const COMMIT_FACTOR: u32 = 10;

/// Whether a blob was taken over from another repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// The blob is in the repository now.
    Yes,
    /// It is not, for whatever reason: it must be uploaded.
    No,
}

/// A blob to upload.
pub(super) struct Upload<'a> {
    /// What it must hash to.
    pub(super) digest: Digest,
    /// Its size in bytes.
    pub(super) size: u64,
    /// Opens it from the beginning, once for each attempt.
    pub(super) open: &'a dyn Fn() -> io::Result<Box<dyn Read + Send>>,
    /// Is told how many bytes of the attempt have been handed to the network.
    pub(super) progress: &'a dyn Fn(u64),
}

/// Takes a blob over from the repository `from`, where the registry can do that.
pub(super) fn mount(
    hosts: &Hosts,
    repository: &Reference,
    from: &Reference,
    digest: Digest,
) -> Result<Mounted> {
    if repository.domain() != from.domain() || repository.path() == from.path() {
        return Ok(Mounted::No);
    }
    let scope = Scope::mount(repository.path(), from.path());
    let mounted = hosts.call(repository, &scope, |grant| {
        let query = [("mount", digest.to_string()), ("from", from.path().to_owned())];
        let url = with_query(grant, &grant.url("blobs/uploads/"), &query)?;
        let answer = hosts.answer(empty_post(grant, &url), &url)?;
        match answer.status {
            201 => Ok(Mounted::Yes),
            // 202: the registry opened an upload instead.
            200..=299 => Ok(Mounted::No),
            _ => Err(grant.context().refused(&Subject::Blob(digest), &answer)),
        }
    });
    match mounted {
        Err(error) if is_no(&error) => Ok(Mounted::No),
        mounted => mounted,
    }
}

/// Says whether the registry answered that it does not mount this blob.
const fn is_no(error: &Error) -> bool {
    match error {
        Error::BlobUnknown { .. } | Error::RepositoryUnknown { .. } => true,
        Error::Status { status, .. } => *status >= 400 && *status < 500,
        error => error.is_refusal(),
    }
}

/// Uploads a blob.
pub(super) fn push(hosts: &Hosts, repository: &Reference, upload: &Upload<'_>) -> Result<()> {
    if upload.size == 0 {
        // No layer and no config is empty; a registry would take it and a reader stumble over it.
        let (digest, expected_bytes) = (upload.digest, 1);
        return Err(Error::SourceLength { digest, expected_bytes, found_bytes: 0 });
    }
    let scope = Scope::new(repository.path(), Access::Push);
    hosts.call(repository, &scope, |grant| upload.attempt(hosts, grant))
}

impl Upload<'_> {
    fn attempt(&self, hosts: &Hosts, grant: &Grant) -> Result<()> {
        let source = (self.open)().map_err(|source| self.unreadable(source))?;
        let url = self.begin(hosts, grant)?;
        let (sender, receiver) = mpsc::channel(CHUNKS_BETWEEN);
        let task = self.send(hosts, grant, url.clone(), receiver);
        if let Err(error) = self.feed(hosts, grant, source, sender) {
            task.abort();
            return Err(error);
        }
        let abort = task.abort_handle();
        let limit = hosts.read_timeout().saturating_mul(COMMIT_FACTOR);
        let answer = match hosts.runtime().within(limit, task) {
            Ok(Ok(answer)) => answer?,
            Ok(Err(error)) => return Err(grant.context().protocol(error.to_string())),
            Err(_) => {
                abort.abort();
                return Err(silent(&url));
            }
        };
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(grant.context().refused(&Subject::Blob(self.digest), &answer)),
        }
    }

    /// Opens an upload and returns where the blob goes.
    fn begin(&self, hosts: &Hosts, grant: &Grant) -> Result<String> {
        let url = grant.url("blobs/uploads/");
        let answer = hosts.answer(empty_post(grant, &url), &url)?;
        if answer.status != 202 {
            return Err(grant.context().refused(&Subject::Blob(self.digest), &answer));
        }
        let Some(location) = answer.header(LOCATION.as_str()) else {
            let reason = "it does not say where an upload goes".to_owned();
            return Err(grant.context().protocol(reason));
        };
        with_query(grant, location, &[("digest", self.digest.to_string())])
    }

    /// Starts to send what comes out of `receiver`.
    fn send(
        &self,
        hosts: &Hosts,
        grant: &Grant,
        url: String,
        receiver: mpsc::Receiver<Bytes>,
    ) -> JoinHandle<Result<Answer>> {
        let body = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|chunk| (Ok::<_, io::Error>(chunk), receiver))
        });
        let request = grant
            .request(Method::PUT, &url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, self.size)
            .body(Body::wrap_stream(body));
        hosts.runtime().spawn(async move { fetch(request, &url, SMALL_LIMIT_BYTES).await })
    }

    /// Reads the blob into `sender`. Ends early where the other side does: its result says why.
    fn feed(
        &self,
        hosts: &Hosts,
        grant: &Grant,
        mut source: Box<dyn Read + Send>,
        sender: mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let mut sent = 0;
        (self.progress)(sent);
        loop {
            let chunk = read_chunk(&mut source).map_err(|source| self.unreadable(source))?;
            let found_bytes = sent + chunk.len() as u64;
            if chunk.is_empty() && sent == self.size {
                return Ok(());
            }
            if chunk.is_empty() || found_bytes > self.size {
                let (digest, expected_bytes) = (self.digest, self.size);
                return Err(Error::SourceLength { digest, expected_bytes, found_bytes });
            }
            match hosts.runtime().within(hosts.read_timeout(), sender.send(Bytes::from(chunk))) {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(silent(&grant.url("blobs/uploads/"))),
            }
            sent = found_bytes;
            (self.progress)(sent);
        }
    }

    const fn unreadable(&self, source: io::Error) -> Error {
        Error::Source { digest: self.digest, source }
    }
}

/// Reads until the chunk is full or the source ends.
fn read_chunk(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    source.take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

/// Returns a request that opens an upload. Some registries insist on the length of nothing.
fn empty_post(grant: &Grant, url: &str) -> RequestBuilder {
    grant.request(Method::POST, url).header(CONTENT_LENGTH, 0)
}

/// Returns an address of the registry, which may be relative, with more in its query.
fn with_query(grant: &Grant, location: &str, query: &[(&str, String)]) -> Result<String> {
    let base = grant.url("");
    let url = Url::parse(&base).and_then(|base| base.join(location));
    let mut url = url.map_err(|error| {
        let location = printable(location);
        grant.context().protocol(format!("{location:?} is no address for an upload: {error}"))
    })?;
    url.query_pairs_mut().extend_pairs(query);
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testserver::Reply;
    use crate::registry::testserver::Request;
    use crate::registry::testserver::TestServer;
    use crate::registry::testserver::registry;
    use crate::registry::testserver::registry_with_login;
    use std::cell::Cell;
    use std::cell::RefCell;

    /// Starts a registry that accepts uploads; the first `failures` of them break.
    fn server(failures: usize) -> TestServer {
        TestServer::start(move |request| {
            let started =
                || Reply::new(202, "").header("Location", "/v2/a/blobs/uploads/1?state=x");
            match request.line.split(['?', ' ']).next() {
                Some("GET") => Reply::new(200, "{}"),
                Some("POST") => started(),
                _ if request.before < failures => Reply::new(503, "busy"),
                _ => Reply::new(201, "").header("Location", "/v2/a/blobs/x"),
            }
        })
    }

    fn content() -> Vec<u8> {
        (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    fn uploads(server: &TestServer) -> Vec<Request> {
        server.requests("PUT /v2/a/blobs/uploads/1?state=x&digest=")
    }

    #[test]
    fn a_blob_is_sent_in_one_request_and_from_the_start_again_after_a_failure() {
        let server = server(2);
        let (content, opened, progress) = (content(), Cell::new(0), RefCell::new(Vec::new()));
        let open = || {
            opened.set(opened.get() + 1);
            Ok(Box::new(io::Cursor::new(self::content())) as Box<dyn Read + Send>)
        };
        let size = content.len() as u64;
        let pushed = registry().push_blob(
            &server.reference("a"),
            Digest::of(&content),
            size,
            &open,
            &|bytes| progress.borrow_mut().push(bytes),
        );
        pushed.expect("pushed");
        assert_eq!(opened.get(), 3);
        let uploads = uploads(&server);
        assert_eq!(uploads.len(), 3);
        assert!(uploads.iter().all(|request| request.body == content));
        assert_eq!(uploads[0].header("content-length"), size.to_string());
        let progress = progress.into_inner();
        assert_eq!(progress.iter().filter(|&&bytes| bytes == 0).count(), 3);
        assert_eq!(progress.iter().max(), Some(&size));
    }

    #[test]
    fn a_source_that_fails_or_has_another_size_is_named() {
        let server = server(0);
        let (digest, reference) = (Digest::of(b"abc"), server.reference("a"));
        let push = |size, open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>| {
            let pushed = registry().push_blob(&reference, digest, size, open, &|_| {});
            pushed.expect_err("refused").to_string()
        };
        let abc = || Ok(Box::new(&b"abc"[..]) as Box<dyn Read + Send>);
        let gone = || Err(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(push(4, &abc), format!("blob {digest} has 3 bytes to upload: expected 4"));
        assert_eq!(push(2, &abc), format!("blob {digest} has 3 bytes to upload: expected 2"));
        assert_eq!(push(0, &abc), format!("blob {digest} has 0 bytes to upload: expected 1"));
        assert_eq!(push(3, &gone), format!("blob {digest} cannot be read for the upload"));
        assert!(uploads(&server).is_empty());
    }

    #[test]
    fn an_upload_that_keeps_failing_or_is_denied_is_an_error() {
        let denied = TestServer::start(|request| match request.line.as_str() {
            "GET /v2/" => Reply::new(200, "{}"),
            _ => Reply::error(403, "DENIED"),
        });
        let abc = || Ok(Box::new(&b"abc"[..]) as Box<dyn Read + Send>);
        let push = |server: &TestServer| {
            let digest = Digest::of(b"abc");
            let pushed = registry().push_blob(&server.reference("a"), digest, 3, &abc, &|_| {});
            pushed.expect_err("refused").to_string()
        };
        assert_eq!(push(&denied), "denied: requested access to the resource is denied");
        assert_eq!(denied.requests("POST").len(), 1);
        let failing = server(usize::MAX);
        assert!(push(&failing).starts_with("received unexpected HTTP status: 503"));
        assert_eq!(uploads(&failing).len(), 3);
    }

    #[test]
    fn an_upload_goes_where_the_registry_says() {
        let storage = TestServer::start(|_| Reply::new(201, ""));
        let elsewhere = format!("http://{}/store?state=x", storage.host());
        // (location, what is wrong)
        let table = [
            (Some(elsewhere), ""),
            (None, "it does not say where an upload goes"),
            (Some("http://[".to_owned()), "is no address for an upload"),
        ];
        for (location, expected) in table {
            let server = TestServer::start(move |request| match request.line.as_str() {
                "GET /v2/" => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=r"),
                _ => match &location {
                    Some(location) => Reply::new(202, "").header("Location", location),
                    None => Reply::new(202, ""),
                },
            });
            let (registry, _dir) = registry_with_login(&server, r#""auth":"dTpw""#);
            let abc = || Ok(Box::new(&b"abc"[..]) as Box<dyn Read + Send>);
            let digest = Digest::of(b"abc");
            match registry.push_blob(&server.reference("a"), digest, 3, &abc, &|_| {}) {
                Ok(()) => assert_eq!(expected, ""),
                Err(error) => assert!(error.to_string().contains(expected), "{error}"),
            }
        }
        let sent = storage.requests("PUT /store?state=x&digest=sha256%3A");
        assert_eq!((sent[0].header("authorization"), sent[0].body.as_slice()), ("", &b"abc"[..]));
    }

    #[test]
    fn a_blob_is_mounted_or_must_be_uploaded() {
        // (answer of the registry, what it means; none for an error)
        let table = [
            (Reply::new(201, "").header("Location", "/v2/a/blobs/x"), Some(Mounted::Yes)),
            (Reply::new(201, ""), Some(Mounted::Yes)),
            (Reply::new(202, "").header("Location", "/v2/a/blobs/uploads/1"), Some(Mounted::No)),
            (Reply::error(404, "BLOB_UNKNOWN"), Some(Mounted::No)),
            (Reply::error(404, "NAME_UNKNOWN"), Some(Mounted::No)),
            (Reply::error(405, "UNSUPPORTED"), Some(Mounted::No)),
            (Reply::new(401, ""), Some(Mounted::No)),
            (Reply::new(403, ""), Some(Mounted::No)),
            (Reply::new(500, ""), None),
        ];
        for (reply, expected) in table {
            let text = format!("{reply:?}");
            let server = TestServer::start(move |request| match request.line.as_str() {
                "GET /v2/" => Reply::new(200, "{}"),
                _ => reply.clone(),
            });
            let digest = Digest::of(b"abc");
            let (to, from) = (server.reference("a"), server.reference("b/c"));
            let mounted = registry().mount_blob(&to, &from, digest);
            assert_eq!(mounted.ok(), expected, "{text}");
            let hex = digest.hex();
            let line = format!("POST /v2/a/blobs/uploads/?mount=sha256%3A{hex}&from=b%2Fc");
            assert!(!server.requests(&line).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_blob_of_another_registry_is_not_mounted() {
        let server = server(0);
        let from = Reference::parse("example.com/b").expect("valid");
        for from in [from, server.reference("a")] {
            let mounted = registry().mount_blob(&server.reference("a"), &from, Digest::of(b""));
            assert_eq!(mounted.expect("an answer"), Mounted::No);
        }
        assert!(server.requests("POST").is_empty());
    }
}
