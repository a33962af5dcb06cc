//! The two HTTP clients of a registry: one for small answers, oci-client for everything else.
//!
//! Both trust the same certificates and use the same proxies: those of the environment
//! (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), and none on the way to this machine.

use std::time::Duration;

use oci_client::client::Certificate;
use oci_client::client::CertificateEncoding;
use oci_client::client::ClientConfig;
use oci_client::client::ClientProtocol;

use crate::registry::Error;
use crate::registry::Options;
use crate::registry::Result;
use crate::registry::host::Host;
use crate::registry::tls::Trust;

/// How long a server that may not speak TLS has to say so.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that oci-client keeps a token; strata forgets it earlier.
const TOKEN_SECONDS: usize = 24 * 3600;
/// A proxy that no address goes through. oci-client has no other way to say "no proxy".
const NO_PROXY_FOR: &str = "*,0.0.0.0/0,::/0";
const UNUSED_PROXY: &str = "http://127.0.0.1:9";

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
    let mut builder = reqwest::Client::builder()
        .user_agent(options.user_agent)
        .connect_timeout(connect_timeout(options, trust))
        .read_timeout(options.read_timeout)
        .tls_danger_accept_invalid_certs(*trust == Trust::Anyone);
    for certificate in trust.extra() {
        let certificate = reqwest::Certificate::from_der(certificate);
        let certificate = certificate.map_err(|error| unusable(host, &error))?;
        builder = builder.tls_certs_merge([certificate]);
    }
    if host.is_loopback() {
        builder = builder.no_proxy();
    }
    check_authorities()?;
    builder.build().map_err(|error| unusable(host, &error))
}

/// Returns the client for everything else.
///
/// It has no read timeout: there it would count the time of an upload too. Who waits for this
/// client limits the wait.
pub(super) fn oci(
    host: &Host,
    options: &Options,
    trust: &Trust,
    scheme: Scheme,
) -> Result<oci_client::Client> {
    let certificate =
        |der: &Vec<u8>| Certificate { encoding: CertificateEncoding::Der, data: der.clone() };
    let mut config = ClientConfig {
        protocol: match scheme {
            Scheme::Https => ClientProtocol::Https,
            Scheme::Http => ClientProtocol::Http,
        },
        accept_invalid_certificates: *trust == Trust::Anyone,
        use_monolithic_push: true,
        extra_root_certificates: trust.extra().iter().map(certificate).collect(),
        platform_resolver: None,
        default_token_expiration_secs: TOKEN_SECONDS,
        connect_timeout: Some(connect_timeout(options, trust)),
        user_agent: options.user_agent,
        ..ClientConfig::default()
    };
    if host.is_loopback() {
        config.http_proxy = Some(UNUSED_PROXY.to_owned());
        config.no_proxy = Some(NO_PROXY_FOR.to_owned());
    }
    oci_client::Client::try_from(config).map_err(|error| unusable(host, &error))
}

/// Checks that the machine trusts anyone. oci-client panics where it does not, even for plain http.
fn check_authorities() -> Result<()> {
    reqwest::Client::builder().no_proxy().build().map(drop).map_err(|_| Error::NoAuthorities)
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
