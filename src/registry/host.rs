//! `Host`: which machine serves a domain, and how far it is to be trusted.
//!
//! Pure: names in, names out. The one special case of the distribution world lives here: the domain
//! `docker.io` is served by `registry-1.docker.io` and its login is kept under a third name.

use std::net::IpAddr;

use crate::image::DEFAULT_DOMAIN;
use crate::image::Reference;

const HUB_HOST: &str = "registry-1.docker.io";
const HUB_LOGIN_KEY: &str = "https://index.docker.io/v1/";

/// The registry that serves a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    domain: String,
}

impl Host {
    /// Returns the host of a reference.
    pub(super) fn of(reference: &Reference) -> Self {
        Self { domain: reference.domain().to_owned() }
    }

    /// Returns the host of a URL: `host[:port]`.
    pub(super) const fn at(domain: String) -> Self {
        Self { domain }
    }

    /// Returns `host[:port]`, as it stands in a URL.
    pub(super) fn address(&self) -> &str {
        if self.is_hub() { HUB_HOST } else { &self.domain }
    }

    /// Returns the keys of the host's login in a login file, the best first.
    pub(super) fn login_keys(&self) -> Vec<&str> {
        if self.is_hub() { vec![HUB_LOGIN_KEY, DEFAULT_DOMAIN] } else { vec![&self.domain] }
    }

    /// Returns the command that stores a login for the host.
    pub(super) fn login_command(&self) -> String {
        if self.is_hub() {
            return "strata login".to_owned();
        }
        format!("strata login {}", self.domain)
    }

    /// Returns the names of the host's directories of certificates.
    pub(super) fn certificate_names(&self) -> Vec<&str> {
        if self.is_hub() { vec![HUB_HOST, DEFAULT_DOMAIN] } else { vec![&self.domain] }
    }

    /// Says whether the host is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let name = self.name();
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Says whether one of the patterns allows the host to be insecure. Loopback always is.
    pub(super) fn is_insecure(&self, patterns: &[String]) -> bool {
        self.is_loopback() || patterns.iter().any(|pattern| self.is_covered(pattern))
    }

    fn is_covered(&self, pattern: &str) -> bool {
        if let Some(suffix) = pattern.strip_prefix('*') {
            return suffix.starts_with('.') && self.name().ends_with(suffix);
        }
        if let (Some((network, bits)), Ok(ip)) = (pattern.split_once('/'), self.name().parse()) {
            return is_in_network(ip, network, bits);
        }
        pattern == self.domain || pattern == self.name()
    }

    /// Returns the host without its port and brackets.
    fn name(&self) -> &str {
        if let Some(rest) = self.domain.strip_prefix('[') {
            return rest.split(']').next().unwrap_or(rest);
        }
        self.domain.split(':').next().unwrap_or(&self.domain)
    }

    fn is_hub(&self) -> bool {
        self.domain == DEFAULT_DOMAIN
    }
}

/// Says whether the first `bits` of `ip` are those of `network`; `false` for what is no network.
fn is_in_network(ip: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            ip.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            ip.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(domain: &str) -> Host {
        Host::of(&Reference::parse(&format!("{domain}/a/b")).expect(domain))
    }

    #[test]
    fn docker_hub_has_three_names() {
        let hub = Host::of(&Reference::parse("debian").expect("valid"));
        assert_eq!(hub.address(), "registry-1.docker.io");
        assert_eq!(hub.login_keys(), ["https://index.docker.io/v1/", "docker.io"]);
        assert_eq!(hub.login_command(), "strata login");
        let other = host("example.com:5000");
        assert_eq!(other.address(), "example.com:5000");
        assert_eq!(other.login_keys(), ["example.com:5000"]);
        assert_eq!(other.login_command(), "strata login example.com:5000");
    }

    #[test]
    fn loopback_and_named_hosts_may_be_insecure() {
        let table: [(&str, &[&str], bool); 17] = [
            ("127.0.0.1", &[], true),
            ("127.3.2.1:5000", &[], true),
            ("[::1]:5000", &[], true),
            ("localhost:5000", &[], true),
            ("localhost.example.com", &[], false),
            ("128.0.0.1", &[], false),
            ("example.com:5000", &["example.com:5000"], true),
            ("example.com:5000", &["example.com"], true),
            ("example.com:5000", &["example.com:5001"], false),
            ("a.example.com", &["*.example.com"], true),
            ("aexample.com", &["*.example.com"], false),
            ("example.com", &["*"], false),
            ("10.1.2.3:5000", &["10.0.0.0/8"], true),
            ("11.1.2.3:5000", &["10.0.0.0/8"], false),
            ("11.1.2.3", &["0.0.0.0/0"], true),
            ("[fd00::1]:5000", &["fd00::/8"], true),
            ("10.1.2.3", &["10.0.0.0/33", "x/8"], false),
        ];
        for (domain, patterns, expected) in table {
            let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            assert_eq!(host(domain).is_insecure(&patterns), expected, "{domain} {patterns:?}");
        }
    }
}
