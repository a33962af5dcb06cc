//! `Grant`: the right to one request, with what to send along and whom to name in errors.
//!
//! It stands between the rules of a request (`manifest`, `blob`, …) and the two HTTP clients: a
//! request asks the grant for a client, a URL or a small answer, and never sees a secret.

use std::sync::Arc;

use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::RegistryOperation;
use oci_client::token_cache::RegistryToken;
use oci_client::token_cache::RegistryTokenType;
use reqwest::Url;

use crate::image::Reference;
use crate::registry::Result;
use crate::registry::credentials::Credential;
use crate::registry::document::Answer;
use crate::registry::document::fetch;
use crate::registry::host::Host;
use crate::registry::refusal::Context;
use crate::registry::token::Access;
use crate::registry::token::Scope;

/// A registry that was reached: its address, its clients, and the login for it.
pub(super) struct Peer {
    /// The registry.
    pub(super) host: Host,
    /// Scheme and address, as every URL begins.
    pub(super) base: String,
    /// The client for small answers.
    pub(super) web: reqwest::Client,
    /// The client for everything else.
    pub(super) oci: oci_client::Client,
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

impl Grant {
    /// Says whether a new token may be taken where this one was not.
    pub(super) const fn is_stale(&self) -> bool {
        !self.is_fresh && matches!(self.authorization, Authorization::Bearer(_))
    }

    /// Returns the client for uploads and downloads; it has the token of this grant.
    pub(super) fn oci(&self) -> &oci_client::Client {
        &self.peer.oci
    }

    /// Returns the repository as oci-client names it, with `tag`, which may be a digest.
    pub(super) fn oci_reference(&self, tag: &str) -> oci_client::Reference {
        let (host, path) = (self.peer.host.address(), self.repository.path());
        oci_client::Reference::with_tag(host.to_owned(), path.to_owned(), tag.to_owned())
    }

    /// Returns the URL of something in the repository.
    pub(super) fn url(&self, what: &str) -> String {
        format!("{}/v2/{}/{what}", self.peer.base, self.repository.path())
    }

    /// Fetches a small answer from `url`, which must be one of the registry.
    pub(super) async fn fetch(&self, url: &str, accept: &str, limit_bytes: u64) -> Result<Answer> {
        let request = self.peer.web.get(url).header("Accept", accept);
        let request = match &self.authorization {
            Authorization::Anonymous => request,
            Authorization::Basic { user, password } => request.basic_auth(user, Some(password)),
            Authorization::Bearer(token) => request.bearer_auth(token),
        };
        fetch(request, url, limit_bytes).await
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

    /// Puts the authorization where oci-client looks for it.
    ///
    /// oci-client looks only if a login is stored, and fetches a token itself where it finds none,
    /// which must not happen for a registry that wants none.
    pub(super) async fn hand_to_oci(&self) {
        let token = match &self.authorization {
            Authorization::Anonymous => return,
            Authorization::Basic { user, password } => {
                RegistryTokenType::Basic(user.clone(), password.clone())
            }
            Authorization::Bearer(token) => {
                RegistryTokenType::Bearer(RegistryToken::Token { token: token.clone() })
            }
        };
        let stored = match &self.peer.credential {
            Some(Credential::Password { user, password }) => {
                RegistryAuth::Basic(user.clone(), password.clone())
            }
            Some(Credential::IdentityToken(_)) | None => RegistryAuth::Anonymous,
        };
        let reference = self.oci_reference("");
        let oci = &self.peer.oci;
        oci.store_auth_if_needed(self.peer.host.address(), &stored).await;
        for operation in [RegistryOperation::Pull, RegistryOperation::Push] {
            if operation == RegistryOperation::Pull || self.scope.access() == Access::Push {
                oci.tokens.insert(&reference, operation, token.clone()).await;
            }
        }
    }
}
