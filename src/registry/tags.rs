//! The tags of a repository.
//!
//! A registry gives them page by page; each page says in its `Link` header where the next one is
//! (distribution specification, "Listing Tags"; RFC 8288). Where a page is is for the registry to
//! say, but strata follows it only within the registry, because the login goes along.

use std::collections::HashSet;

use reqwest::Url;
use serde::Deserialize;

use crate::image::Reference;
use crate::registry::Error;
use crate::registry::Result;
use crate::registry::document::Answer;
use crate::registry::document::SMALL_LIMIT_BYTES;
use crate::registry::fault::printable;
use crate::registry::hosts::Hosts;
use crate::registry::refusal::Subject;
use crate::registry::token::Access;
use crate::registry::token::Scope;

/// A registry with more pages than this is not believed.
const PAGES_MAX: usize = 10_000;
/// All pages together have no more bytes than this: a million tags.
const LIST_LIMIT_BYTES: u64 = 32 << 20;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

/// Returns all tags, in the order of the registry.
pub(super) fn list(hosts: &Hosts, repository: &Reference) -> Result<Vec<String>> {
    let (mut tags, mut len_bytes) = (Vec::new(), 0);
    let mut visited = HashSet::new();
    let mut next = None;
    loop {
        let answer = page(hosts, repository, next.as_deref())?;
        len_bytes += answer.body.len() as u64;
        if len_bytes > LIST_LIMIT_BYTES {
            let url = printable(&answer.url);
            return Err(Error::TooLarge { url, limit_bytes: LIST_LIMIT_BYTES });
        }
        tags.extend(read_page(&answer)?);
        next = next_url(&answer);
        // A page that was seen before would be seen for ever.
        let Some(url) = &next else { return Ok(tags) };
        if !visited.insert(url.clone()) || visited.len() > PAGES_MAX {
            return Ok(tags);
        }
    }
}

/// Fetches the page at `url`, the first one without.
fn page(hosts: &Hosts, repository: &Reference, url: Option<&str>) -> Result<Answer> {
    let scope = Scope::new(repository.path(), Access::Pull);
    hosts.call(repository, &scope, |grant| {
        let url = url.map_or_else(|| grant.url("tags/list"), str::to_owned);
        if !grant.is_of_registry(&url) {
            let url = printable(&url);
            let reason = format!("the next tags are said to be on another host: {url}");
            return Err(grant.context().protocol(reason));
        }
        let fetched = grant.fetch(&url, "application/json", SMALL_LIMIT_BYTES);
        let answer = hosts.runtime().block_on(fetched)?;
        match answer.status {
            200 => Ok(answer),
            _ => Err(grant.context().refused(&Subject::Repository, &answer)),
        }
    })
}

/// Returns the tags of a page.
pub(super) fn read_page(answer: &Answer) -> Result<Vec<String>> {
    let json = |source| Error::Json { url: printable(&answer.url), source };
    let page: Page = serde_json::from_slice(&answer.body).map_err(json)?;
    Ok(page.tags.unwrap_or_default())
}

/// Returns the URL of the next page.
pub(super) fn next_url(answer: &Answer) -> Option<String> {
    let target = next_target(answer.header("Link")?)?;
    // A link that leads nowhere ends the list, as no link does.
    let url = Url::parse(&answer.url).and_then(|base| base.join(target));
    url.map_or(None, |url| Some(url.into()))
}

/// Returns the target of the link with `rel=next` in the header's value.
fn next_target(value: &str) -> Option<&str> {
    value.split('<').skip(1).find_map(|link| {
        let (target, parameters) = link.split_once('>')?;
        let parameters = parameters.to_lowercase().replace(['"', ' '], "");
        parameters.split([';', ',']).any(|parameter| parameter == "rel=next").then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testserver::Reply;
    use crate::registry::testserver::TestServer;
    use crate::registry::testserver::registry;

    #[test]
    fn every_page_is_fetched() {
        let link = |to: &str| format!("<{to}>; rel=\"next\"");
        let server = TestServer::start(move |request| match request.line.as_str() {
            "GET /v2/a/tags/list" => Reply::new(200, r#"{"name":"a","tags":["1","2"]}"#)
                .header("Link", &link("/v2/a/tags/list?last=2")),
            "GET /v2/a/tags/list?last=2" => {
                Reply::new(200, r#"{"tags":["3"]}"#).header("Link", &link("?page=x%2Fy"))
            }
            "GET /v2/a/tags/list?page=x%2Fy" => Reply::new(200, r#"{"tags":["4"]}"#),
            "GET /v2/none/tags/list" => Reply::new(200, r#"{"name":"none","tags":null}"#),
            "GET /v2/loop/tags/list" => {
                Reply::new(200, r#"{"tags":["1"]}"#).header("Link", &link("/v2/loop/tags/list"))
            }
            "GET /v2/out/tags/list" => {
                Reply::new(200, r#"{"tags":["1"]}"#).header("Link", &link("http://127.0.0.2:1/x"))
            }
            "GET /v2/bad/tags/list" => Reply::new(200, "<html>"),
            "GET /v2/" => Reply::new(200, "{}"),
            _ => Reply::error(404, "NAME_UNKNOWN"),
        });
        let tags = |name| registry().tags(&server.reference(name)).map_err(|e| e.to_string());
        assert_eq!(tags("a"), Ok(["1", "2", "3", "4"].map(str::to_owned).to_vec()));
        assert_eq!(tags("none"), Ok(Vec::new()));
        assert_eq!(tags("loop"), Ok(["1", "1"].map(str::to_owned).to_vec()));
        let table = [
            ("out", "does not follow the distribution protocol: the next tags are said to be on"),
            ("bad", "/v2/bad/tags/list cannot be read"),
            ("missing", "missing not found: name unknown: said so"),
        ];
        for (name, expected) in table {
            let error = tags(name).expect_err(name);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_next_link_is_found_among_others() {
        let table = [
            ("</v2/a/tags/list?last=b&n=2>; rel=\"next\"", Some("/v2/a/tags/list?last=b&n=2")),
            ("<x>;rel=next", Some("x")),
            ("<p>; rel=\"prev\", <n>; rel=\"next\"", Some("n")),
            ("<p>; rel=prev", None),
            ("x; rel=next", None),
            ("<x; rel=next", None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(next_target(value), expected, "{value}");
        }
    }
}
