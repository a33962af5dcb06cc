//! Faults of the network, in docker's words.
//!
//! The HTTP client reports a fault as a chain of errors; what a person needs is at its end. The
//! texts are those of Go's `net` package, because they are what docker prints. Pure, except that it
//! reads the error.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

use crate::registry::Error;
use crate::registry::Unreachable;

/// Returns what a fault of the HTTP client on the way to `url` means.
pub(super) fn transport(url: &str, error: &reqwest::Error) -> Error {
    let causes = causes(error);
    let url = printable(url);
    if let Some(fault) = causes.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>())
        && (error.is_connect() || matches!(fault, rustls::Error::AlertReceived(_)))
    {
        return Error::Tls { reason: tls_reason(fault), url };
    }
    if error.is_redirect() || error.is_builder() {
        return Error::Protocol { host: target(&url).0, reason: last_text(&causes) };
    }
    if error.is_connect() {
        let (unreachable, reason) = connect_reason(&url, error, &causes);
        return Error::Connect { url, unreachable, reason };
    }
    let reason = if error.is_timeout() { timed_out() } else { last_text(&causes) };
    Error::Interrupted { url, reason }
}

/// Returns a URL as it may be shown to anyone: without its query, which can hold a secret (that of a
/// signed address does), and without a login. The rest stays as it is written.
pub(super) fn printable(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    // Where the host is: behind the slashes, which a browser takes backwards too.
    let start = url.find("//").or_else(|| url.find("\\\\")).map_or(0, |at| at + 2);
    let (scheme, rest) = url.split_at(start);
    let end = rest.find(['/', '\\']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let host = host.rsplit('@').next().unwrap_or_default();
    // A path like `a:b@c` of what is no URL could be a login too.
    let path = if start == 0 { path.rsplit('@').next().unwrap_or_default() } else { path };
    [scheme, host, path].concat()
}

/// Returns what is at the end of the chain of `error`.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    last_text(&causes(error))
}

/// Returns the text for a registry that stays silent.
pub(super) fn timed_out() -> String {
    "net/http: timeout awaiting response".to_owned()
}

/// Returns the error for a registry that does not answer a request for `url`.
pub(super) fn silent(url: &str) -> Error {
    Error::Interrupted { url: printable(url), reason: timed_out() }
}

/// Returns the errors that `error` wraps, itself first.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut causes = vec![error];
    while let Some(next) = causes.last().and_then(|last| inner(*last)) {
        causes.push(next);
    }
    causes
}

/// Returns what an error wraps. An `io::Error` hides its content from `source`.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(content) => Some(content),
        None => error.source(),
    }
}

fn connect_reason(
    url: &str,
    error: &reqwest::Error,
    causes: &[&(dyn StdError + 'static)],
) -> (Unreachable, String) {
    let (host, port) = target(url);
    // The address is that of the registry, not of the proxy in between, which the error hides.
    let is_tunnel = causes.iter().any(|cause| cause.to_string().contains("tunnel"));
    let proxy = if is_tunnel { "proxyconnect tcp: " } else { "" };
    let dial = format!("{proxy}dial tcp {host}:{port}");
    if error.is_dns() || causes.iter().any(|cause| cause.to_string() == "dns error") {
        return (Unreachable::UnknownHost, format!("{proxy}dial tcp: lookup {host}: no such host"));
    }
    if error.is_timeout() {
        return (Unreachable::TimedOut, format!("{dial}: i/o timeout"));
    }
    let os_error =
        causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    let Some(code) = os_error else {
        return (Unreachable::Other, format!("{dial}: {}", last_text(causes)));
    };
    let os_error = io::Error::from_raw_os_error(code);
    let unreachable = match os_error.kind() {
        io::ErrorKind::ConnectionRefused => Unreachable::Refused,
        io::ErrorKind::TimedOut => Unreachable::TimedOut,
        _ => Unreachable::Other,
    };
    (unreachable, format!("{dial}: connect: {}", os_text(&os_error)))
}

/// Returns host and port of a URL.
fn target(url: &str) -> (String, u16) {
    reqwest::Url::parse(url).map_or_else(
        |_| (url.to_owned(), 0),
        |url| {
            let host = url.host_str().unwrap_or_default().to_owned();
            (host, url.port_or_known_default().unwrap_or_default())
        },
    )
}

/// Returns the system's text without the number that Rust adds.
fn os_text(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn last_text(causes: &[&(dyn StdError + 'static)]) -> String {
    causes.last().map_or_else(String::new, |cause| cause.to_string().to_lowercase())
}

fn tls_reason(fault: &rustls::Error) -> String {
    match fault {
        rustls::Error::InvalidCertificate(fault) => {
            format!("tls: failed to verify certificate: x509: {}", certificate_reason(fault))
        }
        rustls::Error::InvalidMessage(_) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("remote error: tls: {alert:?}"),
        fault => format!("tls: {fault}"),
    }
}

fn certificate_reason(fault: &CertificateError) -> String {
    match fault {
        // An authority of the same name with another key is another authority.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority; put the authority's certificate into \
             /etc/docker/certs.d/<registry>/ca.crt"
                .to_owned()
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            format!("certificate has expired or is not yet valid: {fault}")
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the registry shows the certificate of an authority as its own; let the authority \
             sign a certificate for the registry"
                .to_owned()
        }
        fault => fault.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_a_url_has_a_port() {
        let table = [
            ("http://a.io/v2/", "a.io", 80),
            ("https://a.io/v2/", "a.io", 443),
            ("http://127.0.0.1:5000/v2/", "127.0.0.1", 5000),
            ("https://[::1]:5000/v2/", "[::1]", 5000),
        ];
        for (url, host, port) in table {
            assert_eq!(target(url), (host.to_owned(), port), "{url}");
        }
    }

    #[test]
    fn texts_of_the_system_read_as_in_go() {
        let text = os_text(&io::Error::from_raw_os_error(libc_refused()));
        assert_eq!(text, "connection refused");
    }

    /// `ECONNREFUSED` on Linux.
    const fn libc_refused() -> i32 {
        111
    }

    #[test]
    fn a_cause_inside_an_io_error_is_found() {
        let fault = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = io::Error::other(fault);
        let found = causes(&error).iter().any(|cause| cause.is::<rustls::Error>());
        assert!(found);
    }
}
