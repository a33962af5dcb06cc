//! Tokens: what a registry's token server gives for a login (distribution token authentication).
//!
//! It must not know what a token is used for.

use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use crate::registry::Error;
use crate::registry::Result;
use crate::registry::challenge::Bearer;
use crate::registry::credentials::Credential;
use crate::registry::document::Answer;
use crate::registry::document::SMALL_LIMIT_BYTES;
use crate::registry::document::fetch;
use crate::registry::fault::printable;
use crate::registry::host::Host;

const CLIENT_ID: &str = "strata";
/// What the specification says of a token that does not tell how long it lives.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What a request wants to do to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Access {
    /// Read.
    Pull,
    /// Read and write.
    Push,
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    path: String,
    access: Access,
    from: Option<String>,
}

impl Scope {
    /// Returns the right to `access` to the repository at `path`.
    pub(super) fn new(path: &str, access: Access) -> Self {
        Self { path: path.to_owned(), access, from: None }
    }

    /// Returns the right to write to `path` what is read from `from`.
    pub(super) fn mount(path: &str, from: &str) -> Self {
        Self { path: path.to_owned(), access: Access::Push, from: Some(from.to_owned()) }
    }

    /// Returns the right to nothing but to be known.
    pub(super) const fn none() -> Self {
        Self { path: String::new(), access: Access::Pull, from: None }
    }

    /// Returns what the right allows.
    pub(super) const fn access(&self) -> Access {
        self.access
    }

    fn words(&self) -> Vec<String> {
        if self.path.is_empty() {
            return Vec::new();
        }
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let from = self.from.iter().map(|path| format!("repository:{path}:pull"));
        std::iter::once(format!("repository:{}:{actions}", self.path)).chain(from).collect()
    }
}

/// A token and how long it is good for.
#[derive(Debug)]
pub(super) struct Token {
    /// The token; it is secret.
    pub(super) value: String,
    /// How long it is good for from now on.
    pub(super) lifetime: Duration,
}

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Asks the token server for a token; the answer may be a refusal.
pub(super) async fn ask(
    web: &reqwest::Client,
    host: &Host,
    bearer: &Bearer,
    scope: &Scope,
    credential: Option<&Credential>,
) -> Result<Answer> {
    let words = scope.words();
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(bearer.service.iter().map(|service| ("service", service.as_str())));
    let request = match credential {
        Some(Credential::IdentityToken(token)) => {
            let scopes = words.join(" ");
            query.extend([("grant_type", "refresh_token"), ("client_id", CLIENT_ID)]);
            query.extend([("scope", scopes.as_str()), ("refresh_token", token)]);
            let form = url(host, &bearer.realm, &query)?.query().unwrap_or_default().to_owned();
            let content_type = ("Content-Type", "application/x-www-form-urlencoded");
            web.post(&bearer.realm).header(content_type.0, content_type.1).body(form)
        }
        Some(Credential::Password { user, password }) => {
            query.extend(words.iter().map(|scope| ("scope", scope.as_str())));
            query.push(("account", user));
            web.get(url(host, &bearer.realm, &query)?).basic_auth(user, Some(password))
        }
        None => {
            query.extend(words.iter().map(|scope| ("scope", scope.as_str())));
            web.get(url(host, &bearer.realm, &query)?)
        }
    };
    fetch(request, &bearer.realm, SMALL_LIMIT_BYTES).await
}

/// Returns the token of a good answer.
pub(super) fn read(answer: &Answer) -> Result<Token> {
    let json = |source| Error::Json { url: printable(&answer.url), source };
    let granted: Granted = serde_json::from_slice(&answer.body).map_err(json)?;
    let value = granted.token.filter(is_token).or(granted.access_token.filter(is_token));
    let Some(value) = value else {
        return Err(json(serde::de::Error::missing_field("token")));
    };
    let lifetime = granted.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
    Ok(Token { value, lifetime: lifetime.clamp(DEFAULT_LIFETIME, LONGEST_LIFETIME) })
}

/// Says whether the text can stand in a header.
#[expect(clippy::ptr_arg, reason = "the signature that Option::filter calls")]
fn is_token(text: &String) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn url(host: &Host, realm: &str, query: &[(&str, &str)]) -> Result<Url> {
    Url::parse_with_params(realm, query).map_err(|error| Error::Protocol {
        host: host.address().to_owned(),
        reason: format!("its token server has the address {:?}: {error}", printable(realm)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_lives_a_minute_to_a_day() {
        let read = |body: &str| {
            let answer = Answer::of("http://a.io/token", 200, body.as_bytes());
            read(&answer).map(|token| (token.value, token.lifetime.as_secs())).ok()
        };
        let table = [
            (r#"{"token":"t"}"#, Some(("t", 60))),
            (r#"{"token":"","access_token":"a","expires_in":300}"#, Some(("a", 300))),
            (r#"{"token":"t","access_token":"a","expires_in":1}"#, Some(("t", 60))),
            (r#"{"token":"t","expires_in":18446744073709551615}"#, Some(("t", 86400))),
            (r#"{"token":"a\nb"}"#, None),
            (r#"{"token":"ä"}"#, None),
            ("{}", None),
            ("", None),
        ];
        for (body, expected) in table {
            let expected = expected.map(|(value, lifetime)| (value.to_owned(), lifetime));
            assert_eq!(read(body), expected, "{body}");
        }
    }

    #[test]
    fn scopes_are_spelled_as_the_specification_says() {
        let table = [
            (Scope::new("a/b", Access::Pull), vec!["repository:a/b:pull"]),
            (Scope::new("a/b", Access::Push), vec!["repository:a/b:pull,push"]),
            (Scope::mount("a", "b"), vec!["repository:a:pull,push", "repository:b:pull"]),
        ];
        for (scope, expected) in table {
            assert_eq!(scope.words(), expected);
        }
    }
}
