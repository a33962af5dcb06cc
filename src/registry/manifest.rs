//! Manifests: fetch one by tag or digest, push one.
//!
//! What is handed out is the bytes as they came, checked against every digest that is known of
//! them. It must not know what they say: `image` reads them.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::HeaderValue;

use crate::digest::Digest;
use crate::image::DOCKER_MANIFEST;
use crate::image::DOCKER_MANIFEST_LIST;
use crate::image::MANIFEST_LIMIT_BYTES;
use crate::image::OCI_INDEX;
use crate::image::OCI_MANIFEST;
use crate::image::Reference;
use crate::registry::Error;
use crate::registry::Result;
use crate::registry::document::Answer;
use crate::registry::grant::Grant;
use crate::registry::hosts::Hosts;
use crate::registry::refusal::Subject;
use crate::registry::token::Access;
use crate::registry::token::Scope;

/// What answers at an address where there is no registry.
const WEB_PAGE: &str = "text/html";

/// What a tag or digest names, as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    /// The sha256 of `bytes`.
    pub digest: Digest,
    /// What the registry says the bytes are, without parameters.
    pub media_type: Option<String>,
    /// The document.
    pub bytes: Vec<u8>,
}

/// Fetches what `reference` names; a bare name means its tag `latest`.
pub(super) fn resolve(hosts: &Hosts, reference: &Reference) -> Result<RawManifest> {
    let reference = reference.tag_or_latest();
    let scope = Scope::new(reference.path(), Access::Pull);
    hosts.call(&reference, &scope, |grant| {
        let url = grant.url(&format!("manifests/{}", name(&reference)));
        let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST].join(", ");
        let answer = hosts.runtime().block_on(grant.fetch(&url, &accept, MANIFEST_LIMIT_BYTES))?;
        if answer.status != 200 {
            let subject = Subject::Manifest(reference.clone());
            return Err(grant.context().refused(&subject, &answer));
        }
        let raw = checked(&reference, answer)?;
        if raw.media_type.as_deref() == Some(WEB_PAGE) {
            let reason = format!("it answers {url} with a web page ({WEB_PAGE})");
            return Err(grant.context().protocol(reason));
        }
        Ok(raw)
    })
}

/// Returns what stands for the manifest in a URL. A digest says more than a tag.
fn name(reference: &Reference) -> String {
    let digest = reference.digest().map(|digest| digest.to_string());
    digest.unwrap_or_else(|| reference.tag().unwrap_or_default().to_owned())
}

/// Checks the bytes against the digest asked for and the one the registry announces.
pub(super) fn checked(reference: &Reference, answer: Answer) -> Result<RawManifest> {
    let found = Digest::of(&answer.body);
    // A digest of another algorithm cannot be checked; the one asked for still is.
    let announced = answer.header("Docker-Content-Digest").map(str::parse).into_iter().flatten();
    for expected in reference.digest().into_iter().chain(announced) {
        if expected != found {
            let reference = reference.familiar();
            return Err(Error::DigestMismatch { reference, expected, found });
        }
    }
    let content_type = answer.header("Content-Type");
    let media_type = content_type.and_then(|text| text.split(';').next()).map(str::trim);
    let media_type = media_type.filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(RawManifest { digest: found, media_type, bytes: answer.body })
}

/// Puts a manifest under the tag of `reference`, or under its own digest where there is no tag.
pub(super) fn push(
    hosts: &Hosts,
    reference: &Reference,
    media_type: &str,
    bytes: &[u8],
) -> Result<Digest> {
    let digest = Digest::of(bytes);
    if let Some(expected) = reference.digest().filter(|expected| *expected != digest) {
        let reference = reference.familiar();
        return Err(Error::DigestMismatch { reference, expected, found: digest });
    }
    let scope = Scope::new(reference.path(), Access::Push);
    hosts.call(reference, &scope, |grant| push_once(hosts, grant, reference, media_type, bytes))?;
    Ok(digest)
}

fn push_once(
    hosts: &Hosts,
    grant: &Grant,
    reference: &Reference,
    media_type: &str,
    bytes: &[u8],
) -> Result<()> {
    let digest = Digest::of(bytes).to_string();
    let name = reference.tag().unwrap_or(&digest);
    let media_type = HeaderValue::from_str(media_type)
        .map_err(|_| grant.context().protocol(format!("{media_type:?} is no media type")))?;
    let url = grant.url(&format!("manifests/{name}"));
    let request = grant.request(Method::PUT, &url).header(CONTENT_TYPE, media_type);
    let answer = hosts.answer(request.body(bytes.to_vec()), &url)?;
    match answer.status {
        200..=299 => Ok(()),
        _ => Err(grant.context().refused(&Subject::Repository, &answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testserver::Reply;
    use crate::registry::testserver::TestServer;
    use crate::registry::testserver::registry;

    const BYTES: &[u8] = br#"{"schemaVersion":2}"#;

    /// Answers `BYTES` for every manifest after the given replies.
    fn after(replies: Vec<Reply>) -> TestServer {
        TestServer::start(move |request| match request.line.as_str() {
            "GET /v2/" => Reply::new(200, "{}"),
            _ => replies.get(request.before).cloned().unwrap_or_else(|| {
                Reply::new(200, BYTES).header("Content-Type", "application/x; charset=utf-8")
            }),
        })
    }

    #[test]
    fn a_manifest_is_its_bytes_their_digest_and_their_type() {
        let server = after(Vec::new());
        let expected = RawManifest {
            digest: Digest::of(BYTES),
            media_type: Some("application/x".to_owned()),
            bytes: BYTES.to_vec(),
        };
        let by_digest = server.reference("a").with_digest(Digest::of(BYTES));
        let table = [
            (server.reference("a/b:v1"), "GET /v2/a/b/manifests/v1".to_owned()),
            (server.reference("a"), "GET /v2/a/manifests/latest".to_owned()),
            (by_digest, format!("GET /v2/a/manifests/{}", Digest::of(BYTES))),
        ];
        for (reference, line) in table {
            assert_eq!(registry().resolve(&reference).expect("a manifest"), expected);
            let requests = server.requests(&line);
            assert_eq!(requests.len(), 1, "{line}");
            assert!(requests[0].header("accept").contains(OCI_INDEX), "{requests:?}");
            assert_eq!(requests[0].header("authorization"), "");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_the_rest_is_not() {
        let too_many = || Reply::error(429, "TOOMANYREQUESTS").header("Retry-After", "0");
        let limited = "toomanyrequests: said so";
        // (answers before the good one, requests made, text of the error)
        let table = [
            (vec![too_many()], 2, ""),
            (vec![too_many(), Reply::new(500, "")], 3, ""),
            (vec![Reply::new(200, BYTES).cut(3)], 2, ""),
            (vec![too_many(); 9], 3, limited),
            (vec![Reply::new(503, "x"); 9], 3, "received unexpected HTTP status: 503"),
            (vec![Reply::new(200, BYTES).cut(3); 9], 3, "connection lost"),
            (vec![Reply::error(429, "X").header("Retry-After", "3600")], 1, limited),
            (
                vec![Reply::error(404, "MANIFEST_UNKNOWN")],
                1,
                "not found: manifest unknown: said so",
            ),
            (vec![Reply::error(404, "NAME_UNKNOWN")], 1, "/a not found: name unknown: said so"),
            (vec![Reply::new(403, "")], 1, "pull access denied for "),
            (
                vec![Reply::new(401, "")],
                1,
                "unauthorized: authentication required: run 'strata login 127",
            ),
            (vec![Reply::new(400, "")], 1, "received unexpected HTTP status: 400"),
        ];
        for (replies, requests, expected) in table {
            let server = after(replies.clone());
            let found = registry().resolve(&server.reference("a:v1"));
            assert_eq!(server.requests("GET /v2/a/").len(), requests, "{replies:?}");
            match found {
                Ok(_) => assert_eq!(expected, "", "{replies:?}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!expected.is_empty() && text.contains(expected), "{text}");
                }
            }
        }
    }

    #[test]
    fn bytes_that_do_not_hash_to_a_known_digest_are_refused() {
        let other = Digest::of(b"other");
        let server = after(Vec::new());
        let error = registry().manifest(&server.reference("a"), other).expect_err("other bytes");
        let text = error.to_string();
        assert!(
            text.contains(&format!("has digest {}: expected {other}", Digest::of(BYTES))),
            "{text}"
        );

        let announced = Reply::new(200, BYTES).header("Docker-Content-Digest", &other.to_string());
        let server = after(vec![announced]);
        let error = registry().resolve(&server.reference("a")).expect_err("other digest");
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    }

    #[test]
    fn a_web_page_is_no_manifest() {
        let page = || Reply::new(200, "<html>").header("Content-Type", "text/html; charset=utf-8");
        let server = after(vec![page(); 9]);
        let error = registry().resolve(&server.reference("a:v1")).expect_err("a page").to_string();
        assert!(error.contains("does not follow the distribution protocol"), "{error}");
        assert!(error.contains("/v2/a/manifests/v1 with a web page (text/html)"), "{error}");
    }

    #[test]
    fn a_manifest_that_is_too_large_is_not_read_to_its_end() {
        let server = after(vec![Reply::new(200, vec![b' '; 5 << 20])]);
        let error = registry().resolve(&server.reference("a")).expect_err("too large");
        let expected = "is too large: expected at most 4194304 bytes";
        assert!(error.to_string().ends_with(expected), "{error}");
    }

    #[test]
    fn a_registry_that_is_not_there_is_reported_as_docker_does() {
        // Nothing listens on this port: only root may, and nobody does.
        let reference = Reference::parse("127.0.0.1:1/a").expect("valid");
        let error = registry().resolve(&reference).expect_err("nothing listens");
        let expected =
            "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_manifest_is_pushed_under_its_tag_or_its_digest() {
        let server = TestServer::start(|request| match request.line.as_str() {
            "GET /v2/" => Reply::new(200, "{}"),
            // Without `Location`, as one large registry answers.
            line if line.ends_with("/v1") => Reply::new(201, ""),
            line if line.contains("sha256:") => Reply::new(201, ""),
            _ => Reply::error(400, "MANIFEST_BLOB_UNKNOWN"),
        });
        let digest = Digest::of(BYTES);
        let push = |reference: &Reference| registry().push_manifest(reference, OCI_MANIFEST, BYTES);
        assert_eq!(push(&server.reference("a:v1")).expect("pushed"), digest);
        assert_eq!(push(&server.reference("a")).expect("pushed"), digest);
        assert_eq!(push(&server.reference("a").with_digest(digest)).expect("pushed"), digest);
        let by_tag = &server.requests("PUT /v2/a/manifests/v1")[0];
        assert_eq!((by_tag.header("content-type"), by_tag.body.as_slice()), (OCI_MANIFEST, BYTES));
        assert_eq!(server.requests(&format!("PUT /v2/a/manifests/{digest}")).len(), 2);

        let other = server.reference("a").with_digest(Digest::of(b"other"));
        assert!(matches!(push(&other), Err(Error::DigestMismatch { .. })));
        let error = push(&server.reference("a:v2")).expect_err("refused").to_string();
        assert!(error.contains("400") && error.ends_with("said so"), "{error}");
    }
}
