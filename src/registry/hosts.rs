//! `Hosts`: all registries of a run, and the loop that every request goes through.
//!
//! A request is tried again where that can help, and once more with a new token where an old one
//! was refused; a missing thing, a refused login and a denied access are reported at once.
//!
//! Locks: `sessions` before a slot; a slot is held during the first contact with its host, and no
//! lock is held during a request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::RequestBuilder;

use crate::image::Reference;
use crate::registry::Options;
use crate::registry::Result;
use crate::registry::credentials;
use crate::registry::credentials::Credential;
use crate::registry::document::Answer;
use crate::registry::document::SMALL_LIMIT_BYTES;
use crate::registry::document::fetch;
use crate::registry::fault::silent;
use crate::registry::grant::Grant;
use crate::registry::host::Host;
use crate::registry::retry::Backoff;
use crate::registry::runtime::Runtime;
use crate::registry::session::Session;
use crate::registry::token::Scope;

/// Where the session with a host is kept once there is one.
type Slot = Arc<Mutex<Option<Arc<Session>>>>;

/// The registries of a run.
pub(super) struct Hosts {
    options: Options,
    runtime: Runtime,
    sessions: Mutex<HashMap<String, Slot>>,
}

impl Hosts {
    /// Starts the room; no registry is contacted yet.
    pub(super) fn new(options: Options) -> Result<Self> {
        Ok(Self { options, runtime: Runtime::start()?, sessions: Mutex::default() })
    }

    /// Asks a registry whether it takes a user and a password.
    pub(super) fn check_login(&self, host: &Host, user: &str, password: &str) -> Result<()> {
        let credential =
            Credential::Password { user: user.to_owned(), password: password.to_owned() };
        Session::check_login(host.clone(), &self.options, &self.runtime, credential)
    }

    /// Asks a registry whether it takes the login that is kept for it, and returns its user.
    pub(super) fn check_kept_login(&self, host: &Host) -> Result<Option<String>> {
        let Some(credential) = credentials::find(&self.options, host)? else { return Ok(None) };
        let user = match &credential {
            Credential::Password { user, .. } => user.clone(),
            Credential::IdentityToken(_) => String::new(),
        };
        Session::check_login(host.clone(), &self.options, &self.runtime, credential)?;
        Ok(Some(user))
    }

    /// Returns the threads of the room.
    pub(super) const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Returns how to talk to registries.
    pub(super) const fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the attempts for one request.
    pub(super) const fn backoff(&self) -> Backoff {
        Backoff::new(&self.options)
    }

    /// Returns how long a connection may be silent.
    pub(super) const fn read_timeout(&self) -> Duration {
        self.options.read_timeout
    }

    /// Makes a request to `repository`, again where it fails in a way that may pass.
    pub(super) fn call<T>(
        &self,
        repository: &Reference,
        scope: &Scope,
        mut request: impl FnMut(&Grant) -> Result<T>,
    ) -> Result<T> {
        let session = self.session(repository)?;
        let mut backoff = self.backoff();
        let mut is_renewed = false;
        loop {
            let grant = match session.grant(&self.runtime, repository, scope) {
                Ok(grant) => grant,
                Err(error) => {
                    backoff.wait(error)?;
                    continue;
                }
            };
            match request(&grant) {
                Ok(value) => return Ok(value),
                Err(error) if error.is_refusal() && grant.is_stale() && !is_renewed => {
                    session.forget(scope);
                    is_renewed = true;
                }
                Err(error) => backoff.wait(error)?,
            }
        }
    }

    /// Sends a request for `url` and reads the small answer, unless the registry stays silent.
    pub(super) fn answer(&self, request: RequestBuilder, url: &str) -> Result<Answer> {
        let answered = fetch(request, url, SMALL_LIMIT_BYTES);
        self.runtime.within(self.read_timeout(), answered).unwrap_or_else(|_| Err(silent(url)))
    }

    /// Makes the first contact with the registry of a repository, unless that was before.
    pub(super) fn reach(&self, repository: &Reference) -> Result<()> {
        self.session(repository).map(drop)
    }

    fn session(&self, repository: &Reference) -> Result<Arc<Session>> {
        let host = Host::of(repository);
        let slot = Arc::clone(self.sessions.lock().entry(host.address().to_owned()).or_default());
        let mut session = slot.lock();
        if let Some(session) = &*session {
            return Ok(Arc::clone(session));
        }
        let opened = Arc::new(Session::open(host, &self.options, &self.runtime)?);
        Ok(Arc::clone(session.insert(opened)))
    }
}
