//! `Download`: what is under a URL that is no registry's, as `import` reads it.
//!
//! Redirects are followed. The host is trusted as a registry would be; one that is asked in the clear
//! may not lead to another that nobody vouches for.

use std::fmt;
use std::io;
use std::io::Read;
use std::sync::Arc;

use bytes::Buf;
use bytes::Bytes;
use reqwest::Response;
use reqwest::Url;

use crate::registry::Error;
use crate::registry::Result;
use crate::registry::client;
use crate::registry::document::SMALL_LIMIT_BYTES;
use crate::registry::document::answer;
use crate::registry::fault::innermost;
use crate::registry::fault::printable;
use crate::registry::fault::silent;
use crate::registry::fault::transport;
use crate::registry::host::Host;
use crate::registry::hosts::Hosts;
use crate::registry::refusal::sober;
use crate::registry::session::status_text;
use crate::registry::tls::Trust;

/// Reads what is under a URL. An error of [`Read::read`] has an [`Error`] inside.
pub struct Download {
    hosts: Arc<Hosts>,
    url: String,
    response: Response,
    chunk: Bytes,
}

impl Download {
    /// Asks for what is under `url`, again where it fails in a way that may pass.
    pub(super) fn open(hosts: Arc<Hosts>, url: &str) -> Result<Self> {
        let invalid = |reason: String| Error::Url { url: public_url(url), reason };
        let parsed = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
        let host = host_of(&parsed).ok_or_else(|| invalid("it names no host".to_owned()))?;
        let trust = match parsed.scheme() {
            "https" => Trust::of(&host, hosts.options())?,
            _ => Trust::Authorities(Vec::new()),
        };
        let client = client::download(&host, hosts.options(), &trust)?;
        let mut backoff = hosts.backoff();
        loop {
            match ask(&hosts, &client, url) {
                Ok(response) => {
                    return Ok(Self { hosts, url: url.to_owned(), response, chunk: Bytes::new() });
                }
                Err(error) if error.is_absent() => return Err(error),
                Err(error) => backoff.wait(error).map_err(refused)?,
            }
        }
    }

    /// Gets the next bytes into `chunk`; leaves it empty at the end.
    fn fill(&mut self) -> Result<()> {
        while self.chunk.is_empty() {
            let chunk = async { self.response.chunk().await };
            let next = self.hosts.runtime().block_on(chunk);
            match next.map_err(|error| self.lost(&error))? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn lost(&self, error: &reqwest::Error) -> Error {
        Error::Interrupted { url: public_url(&self.url), reason: innermost(error) }
    }
}

impl Read for Download {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let len = buf.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buf[..len]);
        Ok(len)
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("url", &public_url(&self.url)).finish_non_exhaustive()
    }
}

/// Returns a URL as it may be shown to anyone: without a login and without a query, which can be a
/// signature.
pub fn public_url(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return printable(url) };
    let cleared = parsed.set_username("").and_then(|()| parsed.set_password(None));
    if cleared.is_err() {
        return printable(url);
    }
    parsed.set_query(None);
    parsed.set_fragment(None);
    parsed.into()
}

/// Returns `host[:port]` of a URL.
fn host_of(url: &Url) -> Option<Host> {
    let host = url.host_str()?;
    Some(Host::at(url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))))
}

fn ask(hosts: &Hosts, client: &reqwest::Client, url: &str) -> Result<Response> {
    // The timers of a request need the runtime around them when they are made.
    let answered = hosts.runtime().block_on(async { client.get(url).send().await });
    let response = answered.map_err(|error| match error.is_redirect() {
        true => Error::Url { url: public_url(url), reason: innermost(&error) },
        false => transport(url, &error),
    })?;
    if response.status().is_success() {
        return Ok(response);
    }
    let shown = public_url(response.url().as_str());
    let answered = answer(response, url, SMALL_LIMIT_BYTES);
    let answered = hosts.runtime().within(hosts.options().answer_timeout(), answered);
    let answer = answered.unwrap_or_else(|_| Err(silent(url)))?;
    let message = sober(String::from_utf8_lossy(&answer.body).trim());
    Err(Error::Status { url: shown, status: answer.status, message })
}

/// Returns the error for an answer that is not what was asked for.
fn refused(error: Error) -> Error {
    match error {
        Error::Status { url, status, message } => {
            Error::NotUnderUrl { url, status: status_text(status), message }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testserver::Reply;
    use crate::registry::testserver::TestServer;
    use crate::registry::testserver::registry;

    fn read(url: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        registry().download(url)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_is_under_a_url_is_read_through_redirects_and_again() {
        let server = TestServer::start(|request| match request.line.as_str() {
            "GET /moved" => Reply::new(302, "").header("location", "/a?b"),
            _ if request.before == 0 => Reply::new(503, ""),
            _ => Reply::new(200, "content"),
        });
        assert_eq!(read(&format!("http://{}/moved", server.host())).unwrap(), b"content");
        assert_eq!(server.requests("GET /a?b").len(), 2);
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let server = TestServer::start(|request| match request.line.as_str() {
            "GET /cut" => Reply::new(200, vec![7; 1000]).cut(10),
            "GET /round" => Reply::new(302, "").header("location", "/round"),
            _ => Reply::new(404, "not here"),
        });
        let host = server.host();
        for (path, expected) in [
            (
                "none?key=secret",
                "failed to GET http://HOST/none with status 404 Not Found: not here",
            ),
            ("cut", "connection lost during http://HOST/cut: "),
            ("round", "http://HOST/round cannot be downloaded: too many redirects"),
        ] {
            let said = read(&format!("http://{host}/{path}")).unwrap_err().to_string();
            assert!(said.contains(&expected.replace("HOST", &host)), "{said}");
        }
        let said = read("http://").unwrap_err().to_string();
        assert_eq!(said, "http:// cannot be downloaded: empty host");
        let said = read("http://127.0.0.1:1/x").unwrap_err().to_string();
        assert!(said.contains("dial tcp 127.0.0.1:1: connect: connection refused"), "{said}");
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (url, expected) in [
            ("https://me:pass@example.org/a.tar?sig=x#y", "https://example.org/a.tar"),
            ("http://127.0.0.1:80/a", "http://127.0.0.1/a"),
            ("no url?x", "no url"),
        ] {
            assert_eq!(public_url(url), expected);
        }
    }
}
