//! `BlobReader`: the bytes of a blob, through broken connections.
//!
//! The reader asks for the blob from the byte it has reached, again and again while there is
//! progress. It keeps no more than what the network handed over last, and checks only the length:
//! the caller hashes. Every request names a range, the first too.

use std::fmt;
use std::io;
use std::io::Read;
use std::sync::Arc;

use bytes::Buf;
use bytes::Bytes;
use reqwest::Method;
use reqwest::RequestBuilder;
use reqwest::Response;
use reqwest::header::RANGE;
use tracing::debug;

use crate::digest::Digest;
use crate::image::Descriptor;
use crate::image::Reference;
use crate::registry::Error;
use crate::registry::Result;
use crate::registry::document::SMALL_LIMIT_BYTES;
use crate::registry::document::answer;
use crate::registry::fault::innermost;
use crate::registry::fault::silent;
use crate::registry::fault::timed_out;
use crate::registry::fault::transport;
use crate::registry::grant::Grant;
use crate::registry::hosts::Hosts;
use crate::registry::refusal::Subject;
use crate::registry::retry::Backoff;
use crate::registry::token::Access;
use crate::registry::token::Scope;

/// Reads a blob. An error of [`Read::read`] has an [`Error`] inside.
pub struct BlobReader {
    hosts: Arc<Hosts>,
    repository: Reference,
    descriptor: Descriptor,
    position: u64,
    /// Where the connection that is open now began.
    opened_at: u64,
    connection: Option<Connection>,
    chunk: Bytes,
    backoff: Backoff,
}

/// An answer whose body is being read.
struct Connection {
    response: Response,
    /// Bytes to drop: a server that does not know ranges begins at 0.
    skip_bytes: u64,
}

/// What came next on a connection.
enum Next {
    Chunk(Bytes),
    End,
    Broken(String),
}

impl BlobReader {
    /// Opens the blob at byte `offset`.
    pub(super) fn open(
        hosts: Arc<Hosts>,
        repository: &Reference,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Self> {
        let mut reader = Self {
            backoff: hosts.backoff(),
            hosts,
            repository: repository.clone(),
            descriptor: descriptor.clone(),
            position: offset,
            opened_at: offset,
            connection: None,
            chunk: Bytes::new(),
        };
        if reader.remaining() > 0 {
            reader.connect()?;
        }
        Ok(reader)
    }

    const fn remaining(&self) -> u64 {
        self.descriptor.size.saturating_sub(self.position)
    }

    fn connect(&mut self) -> Result<()> {
        let scope = Scope::new(self.repository.path(), Access::Pull);
        let (hosts, position) = (&self.hosts, self.position);
        let connection = hosts.call(&self.repository, &scope, |grant| {
            request(hosts, grant, &self.descriptor, position)
        });
        let connection = connection.map_err(|error| match error {
            Error::Interrupted { reason, .. } => self.truncated(reason),
            error => error,
        })?;
        self.connection = Some(connection);
        self.opened_at = self.position;
        Ok(())
    }

    /// Gets the next bytes into `chunk`; leaves it empty at the end of the blob.
    fn fill(&mut self) -> Result<()> {
        while self.chunk.is_empty() {
            let Some(connection) = &mut self.connection else {
                if self.remaining() == 0 {
                    return Ok(());
                }
                self.connect()?;
                continue;
            };
            match connection.next(&self.hosts) {
                Next::Chunk(chunk) if self.remaining() < chunk.len() as u64 => {
                    return Err(self.too_long(chunk.len()));
                }
                Next::Chunk(chunk) => self.chunk = chunk,
                Next::End => self.lost("the connection was closed".to_owned())?,
                Next::Broken(reason) => self.lost(reason)?,
            }
        }
        Ok(())
    }

    /// Gives up the connection; waits before the next one where the last brought nothing.
    fn lost(&mut self, reason: String) -> Result<()> {
        self.connection = None;
        if self.remaining() == 0 {
            // Whatever broke, it broke after the last byte.
            return Ok(());
        }
        let digest = self.descriptor.digest;
        debug!(%digest, position = self.position, reason, "blob interrupted");
        if self.position > self.opened_at {
            self.backoff.reset();
        }
        let error = Error::Interrupted { url: digest.to_string(), reason: reason.clone() };
        self.backoff.wait(error).map_err(|_| self.truncated(reason))
    }

    const fn truncated(&self, reason: String) -> Error {
        let (expected_bytes, found_bytes) = (self.descriptor.size, self.position);
        Error::Truncated { digest: self.descriptor.digest, expected_bytes, found_bytes, reason }
    }

    const fn too_long(&self, more: usize) -> Error {
        Error::TooLong {
            digest: self.descriptor.digest,
            expected_bytes: self.descriptor.size,
            found_bytes: self.position + more as u64,
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.fill()?;
        let len = buf.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buf[..len]);
        self.position += len as u64;
        Ok(len)
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("repository", &self.repository)
            .field("digest", &self.descriptor.digest)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Connection {
    fn next(&mut self, hosts: &Hosts) -> Next {
        loop {
            let mut chunk =
                match hosts.runtime().within(hosts.read_timeout(), self.response.chunk()) {
                    Ok(Ok(Some(chunk))) => chunk,
                    Ok(Err(error)) => return Next::Broken(innermost(&error)),
                    Ok(Ok(None)) => return Next::End,
                    Err(_) => return Next::Broken(timed_out()),
                };
            let skip = usize::try_from(self.skip_bytes).unwrap_or(usize::MAX).min(chunk.len());
            chunk.advance(skip);
            self.skip_bytes -= skip as u64;
            if !chunk.is_empty() {
                return Next::Chunk(chunk);
            }
        }
    }
}

/// Asks for the blob from byte `position` on: the registry, then the other places that the descriptor
/// names.
fn request(
    hosts: &Hosts,
    grant: &Grant,
    descriptor: &Descriptor,
    position: u64,
) -> Result<Connection> {
    let url = grant.url(&format!("blobs/{}", descriptor.digest));
    let mut response = ask(hosts, grant.request(Method::GET, &url), &url, position)?;
    for url in descriptor.urls.iter().filter(|url| url.starts_with("http")) {
        if response.status().is_success() {
            break;
        }
        response = ask(hosts, grant.request(Method::GET, url), url, position)?;
    }
    match response.status().as_u16() {
        206 => Ok(Connection { response, skip_bytes: 0 }),
        200 => Ok(Connection { response, skip_bytes: position }),
        _ => {
            let answered = answer(response, &url, SMALL_LIMIT_BYTES);
            let answered = hosts.runtime().within(hosts.options().answer_timeout(), answered);
            let answer = answered.unwrap_or_else(|_| Err(silent(&url)))?;
            Err(grant.context().refused(&Subject::Blob(descriptor.digest), &answer))
        }
    }
}

fn ask(hosts: &Hosts, request: RequestBuilder, url: &str, position: u64) -> Result<Response> {
    let answered = request.header(RANGE, format!("bytes={position}-")).send();
    match hosts.runtime().within(hosts.read_timeout(), answered) {
        Ok(response) => response.map_err(|error| transport(url, &error)),
        Err(_) => Err(silent(url)),
    }
}

/// Says whether the repository has the blob.
pub(super) fn exists(hosts: &Hosts, repository: &Reference, digest: Digest) -> Result<bool> {
    let scope = Scope::new(repository.path(), Access::Pull);
    hosts.call(repository, &scope, |grant| {
        let url = grant.url(&format!("blobs/{digest}"));
        let answer = hosts.answer(grant.request(Method::HEAD, &url), &url)?;
        match answer.status {
            200..=299 => Ok(true),
            404 => Ok(false),
            _ => Err(grant.context().refused(&Subject::Blob(digest), &answer)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::OCI_LAYER;
    use crate::registry::Options;
    use crate::registry::Registry;
    use crate::registry::testserver::Reply;
    use crate::registry::testserver::Request;
    use crate::registry::testserver::TestServer;
    use crate::registry::testserver::options;
    use crate::registry::testserver::registry;
    use crate::registry::testserver::registry_with_login;

    fn content() -> Vec<u8> {
        (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    fn descriptor() -> Descriptor {
        let content = content();
        Descriptor::new(OCI_LAYER, Digest::of(&content), content.len() as u64)
    }

    /// Answers the range asked for.
    fn partial(request: &Request) -> Reply {
        Reply::new(206, &content()[request.range_start()..])
    }

    /// Starts a registry that answers `blob` for the blob; the number counts these requests.
    fn server(blob: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> TestServer {
        TestServer::start(move |request| match request.line.as_str() {
            "GET /v2/" => Reply::new(200, "{}"),
            _ => blob(request, request.before),
        })
    }

    fn read(server: &TestServer, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let reader = registry().blob(&server.reference("a"), &descriptor(), offset);
        reader?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Returns where the requests for the blob began.
    fn starts(server: &TestServer) -> Vec<usize> {
        server.requests("GET /v2/a/blobs/").iter().map(Request::range_start).collect()
    }

    #[test]
    fn a_cut_body_is_continued_where_it_broke() {
        let server = server(|request, nth| match nth {
            0 => partial(request).cut(100_000),
            1 => partial(request).cut(5),
            2 => Reply::new(500, ""),
            3 => Reply::new(200, content()).cut(300_000),
            4 => partial(request).cut(300_000),
            _ => partial(request),
        });
        assert!(read(&server, 0).expect("the blob") == content());
        assert_eq!(starts(&server), [0, 100_000, 100_005, 100_005, 300_000, 600_000]);
    }

    #[test]
    fn a_connection_that_falls_silent_is_replaced() {
        let server = server(|request, nth| match nth {
            0 => partial(request).silent_after(100_000),
            1 => partial(request).silent_after(0),
            _ => partial(request),
        });
        // Longer than a busy machine takes for an answer.
        let read_timeout = std::time::Duration::from_secs(2);
        let registry = Registry::new(Options { read_timeout, ..options() }).expect("threads");
        let mut bytes = Vec::new();
        let mut reader = registry.blob(&server.reference("a"), &descriptor(), 0).expect("a reader");
        reader.read_to_end(&mut bytes).expect("the blob");
        assert!(bytes == content());
        assert_eq!(starts(&server), [0, 100_000, 100_000]);
    }

    #[test]
    fn a_server_without_ranges_is_read_from_the_start() {
        let server = server(|_, nth| match nth {
            0 => Reply::new(200, content()).cut(100_000),
            _ => Reply::new(200, content()),
        });
        assert!(read(&server, 0).expect("the blob") == content());
        let offset = 12_345;
        assert!(read(&server, offset as u64).expect("the blob") == content()[offset..]);
        assert_eq!(starts(&server), [0, 100_000, offset]);
    }

    #[test]
    fn a_blob_that_always_ends_at_the_same_byte_is_truncated() {
        let server = server(|_, _| Reply::new(200, content()).cut(1000));
        let error = read(&server, 0).expect_err("truncated");
        let error = error.downcast::<Error>().expect("an error of this room");
        let Error::Truncated { expected_bytes, found_bytes, .. } = error else { panic!("{error}") };
        assert_eq!((expected_bytes, found_bytes), (800_000, 1000));
        // One attempt with progress, then as many without as are allowed.
        assert_eq!(starts(&server), [0, 1000, 1000]);
    }

    #[test]
    fn a_blob_that_is_too_long_is_refused() {
        let server = server(|_, _| Reply::new(206, [content(), vec![0]].concat()));
        let error = read(&server, 0).expect_err("too long").to_string();
        assert!(error.contains("or more: expected 800000"), "{error}");
    }

    #[test]
    fn a_blob_that_cannot_be_had_is_asked_for_once() {
        let table = [
            (Reply::error(404, "BLOB_UNKNOWN"), "blob unknown to registry"),
            (Reply::new(404, ""), "blob unknown to registry"),
            (Reply::error(403, "DENIED"), "pull access denied"),
            (Reply::new(401, ""), "unauthorized: authentication required"),
            (
                Reply::error(429, "TOOMANYREQUESTS").header("Retry-After", "3600"),
                "toomanyrequests: said so",
            ),
        ];
        for (reply, expected) in table {
            let server = server(move |_, _| reply.clone());
            let error = read(&server, 0).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(starts(&server), [0]);
        }
    }

    #[test]
    fn an_offset_at_the_end_asks_for_nothing() {
        let server = server(|_, _| Reply::new(500, ""));
        assert_eq!(read(&server, 800_000).expect("nothing to read"), b"");
        assert_eq!(starts(&server), [0_usize; 0]);
    }

    #[test]
    fn a_redirect_to_another_host_gets_no_login() {
        let storage = TestServer::start(partial);
        let target = format!("http://{}/blob?signature=x", storage.host());
        let server = TestServer::start(move |request| match request.line.as_str() {
            "GET /v2/" => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=r"),
            _ => Reply::new(307, "").header("Location", &target),
        });
        let (registry, _dir) = registry_with_login(&server, r#""auth":"dTpw""#);
        let mut bytes = Vec::new();
        let mut reader = registry.blob(&server.reference("a"), &descriptor(), 0).expect("a reader");
        reader.read_to_end(&mut bytes).expect("the blob");
        assert!(bytes == content());
        assert_eq!(server.requests("GET /v2/a/")[0].header("authorization"), "Basic dTpw");
        assert_eq!(storage.requests("GET /blob")[0].header("authorization"), "");
    }

    #[test]
    fn a_blob_is_there_or_not() {
        let server = server(|request, _| {
            let status = if request.line.starts_with("HEAD /v2/a/") { 200 } else { 404 };
            Reply::new(status, "")
        });
        for (name, expected) in [("a", true), ("b", false)] {
            let found = registry().has_blob(&server.reference(name), Digest::of(b""));
            assert_eq!(found.expect(name), expected);
        }
    }
}
