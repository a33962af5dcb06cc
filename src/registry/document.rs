//! Small answers of a registry: manifests, lists of tags, tokens.
//!
//! A hostile registry must not fill the memory: each answer has a limit. It must not know what the
//! bytes mean.

use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::Response;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderValue;
use reqwest::header::RETRY_AFTER;
use reqwest::header::WWW_AUTHENTICATE;

use crate::registry::Error;
use crate::registry::Result;
use crate::registry::challenge::Challenge;
use crate::registry::fault::printable;
use crate::registry::fault::transport;

/// The largest list of tags, token or explanation of an error that is read.
pub(super) const SMALL_LIMIT_BYTES: u64 = 4 << 20;

/// An answer, its body in memory.
#[derive(Debug)]
pub(super) struct Answer {
    /// What was asked for.
    pub(super) url: String,
    /// The HTTP status.
    pub(super) status: u16,
    headers: HeaderMap,
    /// The body, whole if the status is 200.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Returns an answer without headers.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(url: &str, status: u16, body: &[u8]) -> Self {
        let (url, headers) = (url.to_owned(), HeaderMap::new());
        Self { url, status, headers, body: body.to_vec() }
    }

    /// Returns the answer with a value for each header that is read anywhere, if it can be one.
    #[cfg(any(test, fuzzing))]
    pub(super) fn with_headers(mut self, value: &[u8]) -> Self {
        let names = ["link", "content-type", "docker-content-digest", "www-authenticate"];
        if let Ok(value) = HeaderValue::from_bytes(value) {
            for name in names.into_iter().chain([RETRY_AFTER.as_str()]) {
                self.headers.append(reqwest::header::HeaderName::from_static(name), value.clone());
            }
        }
        self
    }

    /// Returns a header's value, if it is there and is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let Ok(text) = self.headers.get(name)?.to_str() else { return None };
        Some(text)
    }

    /// Returns how the registry wants to be authenticated to.
    pub(super) fn challenge(&self) -> Challenge {
        let values = self.headers.get_all(WWW_AUTHENTICATE).into_iter();
        Challenge::parse(values.flat_map(HeaderValue::to_str))
    }

    /// Returns how long the registry asks to wait; a date instead of a number is not understood.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let Ok(seconds) = self.header(RETRY_AFTER.as_str())?.trim().parse() else { return None };
        Some(Duration::from_secs(seconds))
    }
}

/// Sends the request for `url` and reads the answer, whatever its status.
///
/// # Errors
/// The network fails, or a good answer has more than `limit_bytes`.
pub(super) async fn fetch(request: RequestBuilder, url: &str, limit_bytes: u64) -> Result<Answer> {
    let response = request.send().await.map_err(|error| transport(url, &error))?;
    answer(response, url, limit_bytes).await
}

/// Reads the rest of an answer that has begun, whatever its status.
pub(super) async fn answer(response: Response, url: &str, limit_bytes: u64) -> Result<Answer> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let is_good = response.status().is_success();
    let body = match read(response, url, limit_bytes).await? {
        Body::Whole(body) => body,
        // Of an explanation the beginning is enough.
        Body::Cut(body) if !is_good => body,
        Body::Cut(_) => return Err(Error::TooLarge { url: printable(url), limit_bytes }),
    };
    Ok(Answer { url: url.to_owned(), status, headers, body })
}

enum Body {
    Whole(Vec<u8>),
    Cut(Vec<u8>),
}

async fn read(mut response: Response, url: &str, limit_bytes: u64) -> Result<Body> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(url, &error))? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > limit_bytes {
            return Ok(Body::Cut(body));
        }
    }
    Ok(Body::Whole(body))
}
