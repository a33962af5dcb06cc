//! `Reference`: the name of an image, `[domain/]path[:tag][@digest]`.
//!
//! The grammar and the completion of short names are those of docker (`distribution/reference`),
//! so that a name means the same image here as there: `debian` is `docker.io/library/debian`. It
//! must not know which host serves a domain; that is the registry's concern.
//!
//! Invariant: a `Reference` is complete and valid. Its canonical text parses back to itself.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error as _;

use crate::digest::Digest;
use crate::image::Error;
use crate::image::Result;

/// The domain of a name without one.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag of a name with neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

const OLD_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const PATH_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;
const DIGEST_HEX_MIN: usize = 32;
const ID_LEN: usize = 64;

/// The complete name of an image: a repository, and possibly a tag and a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the reference that `text` names, completed as docker does.
    ///
    /// # Errors
    /// The text is not a reference; the error's text is docker's.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() == ID_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::ReferenceIsId { reference: text.to_owned() });
        }
        let (domain, rest) = split_domain(text);
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest.as_str(), None),
        };
        let (path, tag) = match name.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (name, None),
        };
        check_case(&rest)?;
        let valid = is_domain(domain)
            && is_path(path)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_any_digest);
        if !valid {
            return Err(Error::ReferenceFormat { reference: text.to_owned() });
        }
        if path.len() > PATH_LIMIT {
            let repository = path.to_owned();
            return Err(Error::ReferenceLength { repository, limit: PATH_LIMIT });
        }
        let digest = digest.map(|digest| parse_digest(digest, text)).transpose()?;
        let (path, tag) = (path.to_owned(), tag.map(str::to_owned));
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }

    /// Returns the domain: `docker.io`, `127.0.0.1:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the path in the registry: `library/debian`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns domain and path: `docker.io/library/debian`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Returns the short name of the repository, as docker prints it: `debian`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        let short = match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(name) if !name.contains('/') => name,
            _ => &self.path,
        };
        // The first part of a path may look like a domain, or all of it like an id.
        match Self::parse(short) {
            Ok(read) if read.domain == self.domain && read.path == self.path => short.to_owned(),
            _ => self.repository(),
        }
    }

    /// Returns the short name with tag and digest: `debian:bookworm`.
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    /// Returns the tag, if one is named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if one is named.
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns the reference to `tag` in the same repository.
    ///
    /// # Errors
    /// The text is not a tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::TagFormat { tag: tag.to_owned() });
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// Returns the reference to `digest` in the same repository.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Returns the reference with the tag `latest` where it has neither tag nor digest.
    #[must_use]
    pub fn tag_or_latest(&self) -> Self {
        let mut reference = self.clone();
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some(DEFAULT_TAG.to_owned());
        }
        reference
    }

    fn suffix(&self) -> String {
        let tag = self.tag.iter().map(|tag| format!(":{tag}"));
        let digest = self.digest.iter().map(|digest| format!("@{digest}"));
        tag.chain(digest).collect()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Splits off the domain and completes both parts.
///
/// The first component is a domain if it can be nothing else: `localhost`, or it has a dot, a colon
/// or an upper-case letter.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, rest) = match text.split_once('/') {
        Some((OLD_DEFAULT_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest)) if looks_like_domain(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        return (domain, format!("{OFFICIAL_PREFIX}{rest}"));
    }
    (domain, rest.to_owned())
}

fn looks_like_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first != first.to_lowercase()
}

/// Refuses an upper-case repository with the text that tells so.
fn check_case(rest: &str) -> Result<()> {
    let repository = rest.split_once(':').map_or(rest, |(repository, _)| repository);
    if repository == repository.to_lowercase() {
        return Ok(());
    }
    Err(Error::ReferenceCase { repository: repository.to_owned() })
}

fn parse_digest(digest: &str, reference: &str) -> Result<Digest> {
    digest
        .parse()
        .map_err(|source| Error::ReferenceDigest { reference: reference.to_owned(), source })
}

fn is_domain(text: &str) -> bool {
    let (is_host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        (is_ip6(address), port)
    } else {
        let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        (is_host_name(host), port)
    };
    is_host && is_port(port)
}

/// Says whether the text is nothing, or a colon and a number.
fn is_port(text: &str) -> bool {
    let is_number = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    text.is_empty() || text.strip_prefix(':').is_some_and(is_number)
}

fn is_ip6(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
}

fn is_host_name(text: &str) -> bool {
    text.split('.').all(|part| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !part.is_empty()
            && part.bytes().all(inside)
            && !part.starts_with('-')
            && !part.ends_with('-')
    })
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// Says whether the text is runs of letters and digits with `.`, `_`, `__` or dashes between.
fn is_path_component(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut separators = text.split(is_word).filter(|separator| !separator.is_empty());
    let is_separator = |separator: &str| {
        matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
    };
    text.starts_with(is_word) && text.ends_with(is_word) && separators.all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_LIMIT
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

/// Says whether the text has the form of a digest of any algorithm.
fn is_any_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    algorithm.split(['+', '.', '-', '_']).all(is_part)
        && hex.len() >= DIGEST_HEX_MIN
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed_and_shortened_as_docker_does() {
        let long = format!("foo/bar@sha256:{HEX}");
        let both = format!("foo:v1@sha256:{HEX}");
        // (typed, canonical, familiar)
        let table = [
            ("debian", "docker.io/library/debian", "debian"),
            ("debian:bookworm", "docker.io/library/debian:bookworm", "debian:bookworm"),
            ("docker.io/debian", "docker.io/library/debian", "debian"),
            ("index.docker.io/team/app:1", "docker.io/team/app:1", "team/app:1"),
            ("team/app", "docker.io/team/app", "team/app"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
            ("localhost:5000/app", "localhost:5000/app", "localhost:5000/app"),
            (
                "127.0.0.1:5000/team/app:v1",
                "127.0.0.1:5000/team/app:v1",
                "127.0.0.1:5000/team/app:v1",
            ),
            ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
            ("[fe80::1]/app", "[fe80::1]/app", "[fe80::1]/app"),
            ("Registry/app", "Registry/app", "Registry/app"),
            ("a--b/c__d.e_f", "docker.io/a--b/c__d.e_f", "a--b/c__d.e_f"),
            ("app:_Tag.1-x", "docker.io/library/app:_Tag.1-x", "app:_Tag.1-x"),
            (&long, &format!("docker.io/{long}"), &long),
            (&both, &format!("docker.io/library/{both}"), &both),
        ];
        for (typed, canonical, familiar) in table {
            let reference = Reference::parse(typed).expect(typed);
            assert_eq!(reference.to_string(), canonical, "{typed}");
            assert_eq!(reference.familiar(), familiar, "{typed}");
            assert_eq!(Reference::parse(canonical).expect(canonical), reference, "{typed}");
        }
    }

    #[test]
    fn regression_a_short_name_is_read_back_as_what_it_was() {
        let digits = format!("docker.io/library/{HEX}");
        for name in ["docker.io/localhost/app", "docker.io/team.io/app:1", &digits] {
            let reference = Reference::parse(name).expect(name);
            assert_eq!(reference.familiar(), name);
            // What it would be without the domain.
            let short = name.trim_start_matches("docker.io/").trim_start_matches("library/");
            assert_ne!(Reference::parse(short).ok(), Some(reference), "{short}");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused_with_its_text() {
        let format = "invalid reference format";
        let too_long = format!("a/{}", "a".repeat(254));
        let upper = format!("Foo@sha256:{HEX}");
        let table = [
            ("", format),
            ("-", format),
            ("foo/", format),
            ("/foo", format),
            ("a//b", format),
            ("foo:", format),
            ("foo@", format),
            ("foo:-tag", format),
            ("foo:a:b", format),
            ("foo bar", format),
            ("foo..bar", format),
            ("foo___bar", format),
            ("foo-/bar", format),
            ("example.com:port/foo", format),
            ("example.com:/foo", format),
            ("-example.com/foo", format),
            ("[::1/foo", format),
            ("[::1]x/foo", format),
            ("[]:1/foo", format),
            ("https://example.com/foo", format),
            ("foo@sha256:abc", format),
            ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
            ("a/B:tag", "invalid reference format: repository name (a/B) must be lowercase"),
            (
                &upper,
                "invalid reference format: repository name (library/Foo@sha256) must be lowercase",
            ),
            (&too_long, "repository name must not be more than 255 characters"),
            (
                HEX,
                "invalid repository name (e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855), cannot specify 64-byte hexadecimal strings",
            ),
        ];
        for (typed, expected) in table {
            let error = Reference::parse(typed).expect_err(typed);
            assert_eq!(error.to_string(), expected, "{typed}");
        }
    }

    #[test]
    fn a_digest_that_is_not_sha256_is_named() {
        let sha512 = format!("foo@sha512:{HEX}{HEX}");
        let upper = format!("foo@sha256:{}", HEX.to_uppercase());
        for typed in [&sha512, &upper] {
            let error = Reference::parse(typed).expect_err(typed);
            assert!(matches!(error, Error::ReferenceDigest { .. }), "{typed}: {error}");
        }
    }

    #[test]
    fn tag_and_digest_replace_each_other() {
        let digest = Digest::of(b"");
        let reference = Reference::parse("app:v1").expect("valid");
        assert_eq!(reference.with_digest(digest).familiar(), format!("app@{digest}"));
        let tagged = reference.with_digest(digest).with_tag("v2").expect("valid");
        assert_eq!(tagged.familiar(), "app:v2");
        assert_eq!(
            reference.with_tag("a b").expect_err("a space").to_string(),
            "invalid tag format"
        );
        assert!(reference.with_tag(&"t".repeat(129)).is_err());
    }

    #[test]
    fn latest_is_added_only_to_a_bare_name() {
        let digest = format!("app@{}", Digest::of(b""));
        let table =
            [("app", "app:latest"), ("app:v1", "app:v1"), (digest.as_str(), digest.as_str())];
        for (typed, expected) in table {
            let reference = Reference::parse(typed).expect(typed).tag_or_latest();
            assert_eq!(reference.familiar(), expected);
        }
    }

    #[test]
    fn a_reference_is_a_string_in_json() {
        let reference = Reference::parse("app:v1").expect("valid");
        let json = serde_json::to_string(&reference).expect("a string");
        assert_eq!(json, "\"docker.io/library/app:v1\"");
        assert_eq!(serde_json::from_str::<Reference>(&json).expect("the same"), reference);
        assert!(serde_json::from_str::<Reference>("\"A\"").is_err());
    }
}
