//! The HTTP clients of a registry: one for small answers, one for answers to a login, one for blobs.
//!
//! All trust the same certificates and use the same proxies: those of the environment
//! (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), and none on the way to this machine. They differ in where
//! they follow a redirect to. What was sent to one host to show who asks is never sent to another, nor
//! is it said where a request came from.

use std::time::Duration;

use reqwest::ClientBuilder;
use reqwest::Url;
use reqwest::redirect::Attempt;
use reqwest::redirect::Policy;

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

/// Where a redirect is followed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follow {
    /// Anywhere: what comes is hashed.
    Anywhere,
    /// Anywhere, but not out of encryption: what comes is believed because of who said it.
    Encrypted,
    /// Only to the same host: a login is sent along, or whoever answers is not asked who he is.
    SameHost,
}

/// Redirects that follow each other, at most.
const REDIRECTS_MAX: usize = 10;

impl Follow {
    fn policy(self) -> Policy {
        Policy::custom(move |attempt| {
            let refused = self.refused(&attempt);
            match refused {
                Some(reason) => attempt.error(reason),
                None => attempt.follow(),
            }
        })
    }

    fn refused(self, attempt: &Attempt<'_>) -> Option<String> {
        let (before, to) = (attempt.previous(), attempt.url());
        if before.len() > REDIRECTS_MAX {
            return Some("too many redirects".to_owned());
        }
        self.refused_from(before.last()?, to)
    }

    fn refused_from(self, from: &Url, to: &Url) -> Option<String> {
        let shown = to.origin().ascii_serialization();
        match self {
            Self::Encrypted if from.scheme() == "https" && to.scheme() != "https" => {
                Some(format!("it redirects an encrypted request to {shown}, in the clear"))
            }
            Self::SameHost if from.origin() != to.origin() => {
                Some(format!("it redirects a request that is for it alone to {shown}"))
            }
            _ => None,
        }
    }
}

/// Returns the client for small answers. It gives up on one that comes in drops.
pub(super) fn web(host: &Host, options: &Options, trust: &Trust) -> Result<reqwest::Client> {
    let follow = match trust {
        Trust::Anyone => Follow::Anywhere,
        Trust::Authorities(_) => Follow::Encrypted,
    };
    build(host, trust, small(host, options, trust, follow)?)
}

/// Returns the client for small answers to requests with a login.
pub(super) fn login(host: &Host, options: &Options, trust: &Trust) -> Result<reqwest::Client> {
    build(host, trust, small(host, options, trust, Follow::SameHost)?)
}

/// Returns the client for blobs.
///
/// It has no read timeout: there it would count the time of an upload too. Who waits for this
/// client limits the wait.
pub(super) fn transfer(host: &Host, options: &Options, trust: &Trust) -> Result<reqwest::Client> {
    build(host, trust, builder(host, options, trust, Follow::Anywhere)?)
}

/// Returns the client for what is no registry's. Of a host that nobody vouches for it goes nowhere else:
/// nobody would have to vouch for the next one either.
pub(super) fn download(host: &Host, options: &Options, trust: &Trust) -> Result<reqwest::Client> {
    let follow = match trust {
        Trust::Anyone => Follow::SameHost,
        Trust::Authorities(_) => Follow::Encrypted,
    };
    let builder = builder(host, options, trust, follow)?;
    build(host, trust, builder.read_timeout(options.read_timeout))
}

fn small(host: &Host, options: &Options, trust: &Trust, follow: Follow) -> Result<ClientBuilder> {
    let builder = builder(host, options, trust, follow)?.read_timeout(options.read_timeout);
    Ok(builder.timeout(options.answer_timeout()))
}

fn builder(host: &Host, options: &Options, trust: &Trust, follow: Follow) -> Result<ClientBuilder> {
    let mut builder = reqwest::Client::builder()
        .user_agent(options.user_agent)
        .redirect(follow.policy())
        .referer(false)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_as_far_as_what_they_carry_allows() {
        let table = [
            (Follow::Anywhere, "https://a.io/x", "http://b.io/y", true),
            (Follow::Encrypted, "https://a.io/x", "https://b.io/y", true),
            (Follow::Encrypted, "http://a.io/x", "http://b.io/y", true),
            (Follow::Encrypted, "http://a.io/x", "https://a.io/x", true),
            (Follow::Encrypted, "https://a.io/x", "http://a.io/x", false),
            (Follow::SameHost, "https://a.io/x", "https://a.io:443/y", true),
            (Follow::SameHost, "https://a.io/x", "https://b.io/x", false),
            (Follow::SameHost, "https://a.io/x", "https://a.io:5000/x", false),
            (Follow::SameHost, "https://a.io/x", "http://a.io/x", false),
            (Follow::SameHost, "http://a.io/x", "https://a.io/x", false),
        ];
        for (follow, from, to, expected) in table {
            let url = |text| Url::parse(text).expect("a URL");
            let refused = follow.refused_from(&url(from), &url(to));
            assert_eq!(refused.is_none(), expected, "{follow:?} {from} {to}: {refused:?}");
        }
    }
}
