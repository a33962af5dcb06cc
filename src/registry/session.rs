//! `Session`: what strata has found out about one registry, and the tokens it gave.
//!
//! The first contact decides for the whole run whether the registry is spoken to with TLS and how
//! it wants to be authenticated to. A host that may be insecure is asked with TLS first and in the
//! clear only if that fails, as docker does. Tokens are fetched for each scope, kept until shortly
//! before they expire.
//!
//! Locks: `tokens` is held while a token is fetched, so that parallel layers share one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::image::Reference;
use crate::registry::Error;
use crate::registry::Options;
use crate::registry::Result;
use crate::registry::challenge::Bearer;
use crate::registry::challenge::Challenge;
use crate::registry::client;
use crate::registry::client::Scheme;
use crate::registry::credentials;
use crate::registry::credentials::Credential;
use crate::registry::document::SMALL_LIMIT_BYTES;
use crate::registry::document::fetch;
use crate::registry::fault::printable;
use crate::registry::grant::Authorization;
use crate::registry::grant::Grant;
use crate::registry::grant::Peer;
use crate::registry::host::Host;
use crate::registry::refusal::Context;
use crate::registry::refusal::Subject;
use crate::registry::retry::Backoff;
use crate::registry::runtime::Runtime;
use crate::registry::tls::Trust;
use crate::registry::token;
use crate::registry::token::Scope;

/// How long before its end a token is no longer used.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// One registry.
pub(super) struct Session {
    peer: Arc<Peer>,
    challenge: Challenge,
    tokens: Mutex<HashMap<Scope, Held>>,
}

/// A token that was fetched before.
struct Held {
    token: String,
    until: Instant,
}

impl Session {
    /// Makes the first contact with `host`.
    pub(super) fn open(host: Host, options: &Options, runtime: &Runtime) -> Result<Self> {
        let credential = credentials::find(options, &host)?;
        Self::open_as(host, options, runtime, credential)
    }

    fn open_as(
        host: Host,
        options: &Options,
        runtime: &Runtime,
        credential: Option<Credential>,
    ) -> Result<Self> {
        let trust = Trust::of(&host, options)?;
        let web = client::web(&host, options, &trust)?;
        let schemes: &[_] = match trust {
            Trust::Anyone => &[Scheme::Https, Scheme::Http],
            Trust::Authorities(_) => &[Scheme::Https],
        };
        let (scheme, challenge) = contact(&web, &host, schemes, options, runtime)?;
        let login = client::login(&host, options, &trust)?;
        let transfer = client::transfer(&host, options, &trust)?;
        let base = format!("{}://{}", scheme.as_str(), host.address());
        let peer = Arc::new(Peer { host, base, web, login, transfer, credential });
        Ok(Self { peer, challenge, tokens: Mutex::default() })
    }

    /// Asks `host` whether it takes a login.
    pub(super) fn check_login(
        host: Host,
        options: &Options,
        runtime: &Runtime,
        credential: Credential,
    ) -> Result<()> {
        let session = Self::open_as(host, options, runtime, Some(credential.clone()))?;
        let peer = &session.peer;
        let url = format!("{}/v2/", peer.base);
        let answer = match (&session.challenge, credential) {
            (Challenge::Bearer(bearer), credential) => {
                if !peer.host.is_loopback() && would_leak(&peer.base, &bearer.realm) {
                    let realm = printable(&bearer.realm);
                    let reason = format!("it wants the login sent in the clear to {realm}");
                    let host = peer.host.address().to_owned();
                    return Err(Error::Protocol { host, reason });
                }
                let scope = Scope::none();
                let asked = token::ask(&peer.login, &peer.host, bearer, &scope, Some(&credential));
                runtime.block_on(asked)?
            }
            (_, Credential::Password { user, password }) => {
                let request = peer.login.get(&url).basic_auth(user, Some(password));
                runtime.block_on(fetch(request, &url, SMALL_LIMIT_BYTES))?
            }
            // Nobody asked for it.
            (_, Credential::IdentityToken(_)) => return Ok(()),
        };
        match answer.status {
            200..=299 => Ok(()),
            status => Err(Error::LoginRefused { url, status: status_text(status) }),
        }
    }

    /// Returns the right to one request to `repository`, with a token where the registry wants one.
    pub(super) fn grant(
        &self,
        runtime: &Runtime,
        repository: &Reference,
        scope: &Scope,
    ) -> Result<Grant> {
        let (authorization, is_fresh) = self.authorization(runtime, repository, scope)?;
        let (peer, repository) = (Arc::clone(&self.peer), repository.clone());
        Ok(Grant { peer, repository, scope: scope.clone(), authorization, is_fresh })
    }

    /// Forgets the token for `scope`: the registry does not take it any more.
    pub(super) fn forget(&self, scope: &Scope) {
        self.tokens.lock().remove(scope);
    }

    /// Returns what to send along, and whether it was made for this request.
    fn authorization(
        &self,
        runtime: &Runtime,
        repository: &Reference,
        scope: &Scope,
    ) -> Result<(Authorization, bool)> {
        let bearer = match (&self.challenge, &self.peer.credential) {
            (Challenge::Bearer(bearer), _) => bearer,
            (Challenge::Basic, Some(Credential::Password { user, password })) => {
                let (user, password) = (user.clone(), password.clone());
                return Ok((Authorization::Basic { user, password }, true));
            }
            _ => return Ok((Authorization::Anonymous, true)),
        };
        let mut tokens = self.tokens.lock();
        if let Some(held) = tokens.get(scope).filter(|held| held.until > Instant::now()) {
            return Ok((Authorization::Bearer(held.token.clone()), false));
        }
        let token = self.token(runtime, bearer, repository, scope)?;
        let until = Instant::now() + token.lifetime.saturating_sub(TOKEN_MARGIN);
        tokens.insert(scope.clone(), Held { token: token.value.clone(), until });
        Ok((Authorization::Bearer(token.value), true))
    }

    fn token(
        &self,
        runtime: &Runtime,
        bearer: &Bearer,
        repository: &Reference,
        scope: &Scope,
    ) -> Result<token::Token> {
        let access = scope.access();
        let context = Context { host: &self.peer.host, repository, access, had_token: false };
        let credential = self.peer.credential.as_ref();
        let is_loopback = self.peer.host.is_loopback();
        if credential.is_some() && !is_loopback && would_leak(&self.peer.base, &bearer.realm) {
            let realm = printable(&bearer.realm);
            let reason = format!("it wants the login sent in the clear to {realm}");
            return Err(context.protocol(reason));
        }
        let asked = token::ask(self.peer.for_tokens(), &self.peer.host, bearer, scope, credential);
        let answer = runtime.block_on(asked)?;
        match answer.status {
            200 => token::read(&answer),
            _ => Err(context.refused(&Subject::Token, &answer)),
        }
    }
}

/// Returns a status as people know it: `401 Unauthorized`.
pub(super) fn status_text(status: u16) -> String {
    match reqwest::StatusCode::from_u16(status) {
        Ok(status) => status.to_string(),
        Err(_) => status.to_string(),
    }
}

/// Says whether a login would travel in the clear though the registry itself is encrypted.
fn would_leak(base: &str, realm: &str) -> bool {
    base.starts_with("https:") && !realm.to_lowercase().starts_with("https:")
}

/// Finds out how to speak to `host` and how it wants to be authenticated to.
fn contact(
    web: &reqwest::Client,
    host: &Host,
    schemes: &[Scheme],
    options: &Options,
    runtime: &Runtime,
) -> Result<(Scheme, Challenge)> {
    let mut backoff = Backoff::new(options);
    loop {
        match first_answer(web, host, schemes, runtime) {
            Ok(found) => return Ok(found),
            // Nobody waits for a registry that is not there; docker does not either.
            Err(error) if error.is_absent() => return Err(error),
            Err(error) => backoff.wait(error)?,
        }
    }
}

/// Returns the first scheme that is answered, or the error of the last.
fn first_answer(
    web: &reqwest::Client,
    host: &Host,
    schemes: &[Scheme],
    runtime: &Runtime,
) -> Result<(Scheme, Challenge)> {
    let ping = |scheme: Scheme| {
        let challenge = runtime.block_on(ping(web, host, scheme))?;
        Ok((scheme, challenge))
    };
    match schemes {
        [first, second] => ping(*first).or_else(|error| match error {
            Error::Connect { .. } | Error::Tls { .. } | Error::Interrupted { .. } => ping(*second),
            error => Err(error),
        }),
        schemes => ping(schemes.first().copied().unwrap_or(Scheme::Https)),
    }
}

async fn ping(web: &reqwest::Client, host: &Host, scheme: Scheme) -> Result<Challenge> {
    let url = format!("{}://{}/v2/", scheme.as_str(), host.address());
    let answer = fetch(web.get(&url), &url, SMALL_LIMIT_BYTES).await?;
    let status = answer.status;
    match status {
        429 => {
            let (host, retry_after) = (host.address().to_owned(), answer.retry_after());
            let message = "too many requests".to_owned();
            Err(Error::TooManyRequests { host, message, retry_after })
        }
        500..=599 => Err(Error::Status { url, status, message: "no explanation".to_owned() }),
        _ => Ok(answer.challenge()),
    }
}

#[cfg(test)]
mod tests {
    use super::would_leak;
    use crate::digest::Digest;
    use crate::registry::Mounted;
    use crate::registry::testserver::Reply;
    use crate::registry::testserver::Request;
    use crate::registry::testserver::TestServer;
    use crate::registry::testserver::registry;
    use crate::registry::testserver::registry_with_login;

    /// `user:secret` in base64.
    const AUTH: &str = "dXNlcjpzZWNyZXQ=";

    /// Starts a registry with a token server. `token` answers its requests; the registry takes the
    /// token `good`.
    fn server(token: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> TestServer {
        TestServer::start(move |request| {
            let realm = format!("http://{}/token", request.header("host"));
            let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
            match request.line.split(['?', ' ']).nth(1) {
                Some("/token") => token(request),
                Some(_) if request.header("authorization") == "Bearer good" => {
                    Reply::new(200, r#"{"tags":["1"]}"#)
                }
                _ => Reply::error(401, "UNAUTHORIZED").header("WWW-Authenticate", &challenge),
            }
        })
    }

    fn good() -> Reply {
        Reply::new(200, r#"{"token":"good","expires_in":300}"#)
    }

    fn tokens(server: &TestServer) -> Vec<String> {
        let requests = server.requests("").into_iter();
        requests.map(|request| request.line).filter(|line| line.contains("/token")).collect()
    }

    #[test]
    fn a_token_is_fetched_once_for_each_scope() {
        let server = server(|_| good());
        let registry = registry();
        let repository = server.reference("a/b");
        for _ in 0..3 {
            assert_eq!(registry.tags(&repository).expect("tags"), ["1"]);
        }
        assert!(registry.has_blob(&repository, Digest::of(b"")).expect("an answer"));
        assert_eq!(registry.tags(&server.reference("c")).expect("tags"), ["1"]);
        let pull = |path| format!("GET /token?service=s&scope=repository%3A{path}%3Apull");
        assert_eq!(tokens(&server), [pull("a%2Fb"), pull("c")]);

        let mounted = registry.mount_blob(&repository, &server.reference("c"), Digest::of(b""));
        assert_eq!(mounted.expect("an answer"), Mounted::No);
        let push = "GET /token?service=s&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull";
        assert_eq!(tokens(&server)[2..], [push]);
    }

    #[test]
    fn a_token_that_is_no_longer_taken_is_replaced() {
        let server = TestServer::start(|request| {
            let challenge = format!("Bearer realm=\"http://{}/token\"", request.header("host"));
            let refused = || Reply::new(401, "").header("WWW-Authenticate", &challenge);
            match request.line.split(['?', ' ']).nth(1) {
                Some("/token") => {
                    Reply::new(200, format!(r#"{{"access_token":"{}"}}"#, request.before))
                }
                Some("/v2/") => refused(),
                // The first token is good for one request.
                _ if request.header("authorization") == "Bearer 0" && request.before > 0 => {
                    refused()
                }
                _ => Reply::new(200, r#"{"tags":[]}"#),
            }
        });
        let registry = registry();
        for _ in 0..3 {
            registry.tags(&server.reference("a")).expect("tags");
        }
        assert_eq!(tokens(&server).len(), 2);
        assert_eq!(server.requests("GET /v2/a/").len(), 4);
    }

    #[test]
    fn a_refusal_of_the_token_server_is_reported_and_not_repeated() {
        let table = [
            (
                Reply::new(401, r#"{"details":"incorrect username or password"}"#),
                1,
                "unauthorized: incorrect username or password: run 'strata login 127.0.0.1:",
            ),
            (Reply::error(403, "DENIED"), 1, "pull access denied for 127.0.0.1:"),
            (Reply::new(404, ""), 1, "received unexpected HTTP status: 404"),
            (Reply::new(200, "{}"), 1, "/token cannot be read"),
            (Reply::new(503, ""), 3, "received unexpected HTTP status: 503"),
            (Reply::new(200, r#"{"token":"bad"}"#), 1, "pull access denied for 127.0.0.1:"),
        ];
        for (reply, requests, expected) in table {
            let server = server(move |_| reply.clone());
            let error = registry().tags(&server.reference("a")).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(tokens(&server).len(), requests, "{expected}");
        }
    }

    #[test]
    fn parallel_requests_share_one_token() {
        let server = server(|_| good());
        let (registry, repository) = (registry(), server.reference("a"));
        std::thread::scope(|scope| {
            let ask = || registry.has_blob(&repository, Digest::of(b"")).expect("an answer");
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            assert!(threads.into_iter().all(|thread| thread.join().expect("no panic")));
        });
        assert_eq!(tokens(&server).len(), 1);
        assert_eq!(server.requests("GET /v2/").len(), 1);
    }

    #[test]
    fn a_login_for_an_encrypted_registry_is_not_sent_in_the_clear() {
        let table = [
            ("https://a.io", "https://auth.a.io/token", false),
            ("https://a.io", "HTTPS://auth.a.io/token", false),
            ("https://a.io", "http://auth.a.io/token", true),
            ("http://a.io", "http://auth.a.io/token", false),
        ];
        for (base, realm, expected) in table {
            assert_eq!(would_leak(base, realm), expected, "{base} {realm}");
        }
    }

    #[test]
    fn a_token_server_without_an_address_breaks_the_protocol() {
        let server = TestServer::start(|_| {
            Reply::new(401, "").header("WWW-Authenticate", "Bearer realm=token")
        });
        let error = registry().tags(&server.reference("a")).expect_err("no address").to_string();
        let expected = "its token server has the address \"token\": relative URL without a base";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn a_login_goes_to_the_token_server_and_the_token_to_the_registry() {
        let server = server(|request| {
            let is_login = request.header("authorization") == format!("Basic {AUTH}");
            if is_login { good() } else { Reply::new(401, "") }
        });
        let (registry, _dir) = registry_with_login(&server, &format!(r#""auth":"{AUTH}""#));
        assert_eq!(registry.tags(&server.reference("a")).expect("tags"), ["1"]);
        assert!(tokens(&server)[0].ends_with("&account=user"), "{:?}", tokens(&server));
    }

    #[test]
    fn an_identity_token_is_changed_for_a_token() {
        let server = server(|request| {
            let expected = "service=s&grant_type=refresh_token&client_id=strata\
                            &scope=repository%3Aa%3Apull&refresh_token=id%2Btoken";
            let is_good = request.line == "POST /token" && request.body == expected.as_bytes();
            if is_good { good() } else { Reply::new(401, "") }
        });
        let (registry, _dir) = registry_with_login(&server, r#""identitytoken":"id+token""#);
        assert_eq!(registry.tags(&server.reference("a")).expect("tags"), ["1"]);
    }

    #[test]
    fn a_password_is_sent_with_each_request_where_no_token_is_wanted() {
        let server = TestServer::start(|request| {
            let is_login = request.header("authorization") == format!("Basic {AUTH}");
            match request.line.as_str() {
                line if is_login && line != "GET /v2/" => Reply::new(200, r#"{"tags":["1"]}"#),
                _ => Reply::error(401, "UNAUTHORIZED").header("WWW-Authenticate", "Basic realm=r"),
            }
        });
        let (good, _good_dir) = registry_with_login(&server, &format!(r#""auth":"{AUTH}""#));
        assert_eq!(good.tags(&server.reference("a")).expect("tags"), ["1"]);
        assert!(good.has_blob(&server.reference("a"), Digest::of(b"")).expect("an answer"));
        let (wrong, _wrong_dir) =
            registry_with_login(&server, r#""username":"user","password":"wrong""#);
        for registry in [wrong, registry()] {
            let error = registry.tags(&server.reference("a")).expect_err("refused").to_string();
            assert!(error.starts_with("unauthorized: said so: run 'strata login 127."), "{error}");
        }
    }
}
