//! The two HTTP clients of a registry: one for small answers, one for blobs.
//!
//! Both trust the same certificates and use the same proxies: those of the environment
//! (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), and none on the way to this machine.

use std::time::Duration;

use reqwest::ClientBuilder;

use crate::registry::Error;
use crate::registry::Options;
use crate::registry::Result;
use crate::registry::host::Host;
use crate::registry::tls::Trust;

/// How long a server that may not speak TLS has to say so.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a registry is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// With TLS.
    Https,
    /// In the clear.
    Http,
}

impl Scheme {
    /// Returns the scheme as it stands in a URL.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// Returns the client for small answers.
pub(super) fn web(host: &Host, options: &Options, trust: &Trust) -> Result<reqwest::Client> {
    build(host, trust, builder(host, options, trust)?.read_timeout(options.read_timeout))
}

/// Returns the client for blobs.
///
/// It has no read timeout: there it would count the time of an upload too. Who waits for this
/// client limits the wait.
pub(super) fn transfer(host: &Host, options: &Options, trust: &Trust) -> Result<reqwest::Client> {
    build(host, trust, builder(host, options, trust)?)
}

fn builder(host: &Host, options: &Options, trust: &Trust) -> Result<ClientBuilder> {
    let mut builder = reqwest::Client::builder()
        .user_agent(options.user_agent)
        .connect_timeout(connect_timeout(options, trust))
        .tls_danger_accept_invalid_certs(*trust == Trust::Anyone);
    for certificate in trust.extra() {
        let certificate = reqwest::Certificate::from_der(certificate);
        let certificate = certificate.map_err(|error| unusable(host, &error))?;
        builder = builder.tls_certs_merge([certificate]);
    }
    Ok(if host.is_loopback() { builder.no_proxy() } else { builder })
}

fn build(host: &Host, trust: &Trust, builder: ClientBuilder) -> Result<reqwest::Client> {
    builder.build().map_err(|error| match trust {
        Trust::Authorities(extra) if extra.is_empty() && !has_authorities() => Error::NoAuthorities,
        _ => unusable(host, &error),
    })
}

/// Says whether the machine trusts anyone: a client that asks for nothing cannot be built else.
fn has_authorities() -> bool {
    reqwest::Client::builder().no_proxy().build().is_ok()
}

fn connect_timeout(options: &Options, trust: &Trust) -> Duration {
    match trust {
        Trust::Anyone => options.connect_timeout.min(PROBE_TIMEOUT),
        Trust::Authorities(_) => options.connect_timeout,
    }
}

fn unusable(host: &Host, error: &dyn std::error::Error) -> Error {
    let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    Error::Client { host: host.address().to_owned(), reason }
}
