//! `Grant`: the right to one request, with what to send along and whom to name in errors.
//!
//! It stands between the rules of a request (`manifest`, `blob`, …) and the two HTTP clients: a
//! request asks the grant for a URL or a small answer, and never sees a secret.

use std::sync::Arc;

use reqwest::Method;
use reqwest::RequestBuilder;
use reqwest::Url;

use crate::image::Reference;
use crate::registry::Result;
use crate::registry::credentials::Credential;
use crate::registry::document::Answer;
use crate::registry::document::fetch;
use crate::registry::host::Host;
use crate::registry::refusal::Context;
use crate::registry::token::Scope;

/// A registry that was reached: its address, its clients, and the login for it.
pub(super) struct Peer {
    /// The registry.
    pub(super) host: Host,
    /// Scheme and address, as every URL begins.
    pub(super) base: String,
    /// The client for small answers.
    pub(super) web: reqwest::Client,
    /// The client for small answers to a login.
    pub(super) login: reqwest::Client,
    /// The client for blobs.
    pub(super) transfer: reqwest::Client,
    /// The login, if there is one.
    pub(super) credential: Option<Credential>,
}

/// What is sent along with a request.
#[derive(Clone)]
pub(super) enum Authorization {
    /// Nothing.
    Anonymous,
    /// User and password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Bearer(String),
}

/// The right to one request.
pub(super) struct Grant {
    pub(super) peer: Arc<Peer>,
    pub(super) repository: Reference,
    pub(super) scope: Scope,
    pub(super) authorization: Authorization,
    /// Whether the authorization was made for this request.
    pub(super) is_fresh: bool,
}

impl Peer {
    /// Returns the client to ask a token server with, to which a login goes along if there is one.
    pub(super) const fn for_tokens(&self) -> &reqwest::Client {
        if self.credential.is_some() { &self.login } else { &self.web }
    }
}

impl Grant {
    /// Says whether a new token may be taken where this one was not.
    pub(super) const fn is_stale(&self) -> bool {
        !self.is_fresh && matches!(self.authorization, Authorization::Bearer(_))
    }

    /// Returns the URL of something in the repository.
    pub(super) fn url(&self, what: &str) -> String {
        format!("{}/v2/{}/{what}", self.peer.base, self.repository.path())
    }

    /// Fetches a small answer from `url`, which must be one of the registry.
    pub(super) async fn fetch(&self, url: &str, accept: &str, limit_bytes: u64) -> Result<Answer> {
        let request = self.peer.web.get(url).header("Accept", accept);
        fetch(self.authorized(request), url, limit_bytes).await
    }

    /// Returns a request for `url` of the client for blobs. Only the registry itself is shown the
    /// authorization.
    pub(super) fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.peer.transfer.request(method, url);
        if self.is_of_registry(url) { self.authorized(request) } else { request }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.authorization {
            Authorization::Anonymous => request,
            Authorization::Basic { user, password } => request.basic_auth(user, Some(password)),
            Authorization::Bearer(token) => request.bearer_auth(token),
        }
    }

    /// Returns whom to name in errors of this request.
    pub(super) fn context(&self) -> Context<'_> {
        let had_token = matches!(self.authorization, Authorization::Bearer(_));
        let (host, repository) = (&self.peer.host, &self.repository);
        Context { host, repository, access: self.scope.access(), had_token }
    }

    /// Says whether `url` is one of this registry.
    pub(super) fn is_of_registry(&self, url: &str) -> bool {
        let origin = |url| Url::parse(url).map(|url| url.origin());
        matches!((origin(&self.peer.base), origin(url)), (Ok(own), Ok(other)) if own == other)
    }
}
