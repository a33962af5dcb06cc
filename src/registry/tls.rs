//! `Trust`: whose certificates a registry may show.
//!
//! The authorities of the machine (or those of `SSL_CERT_FILE`), and those in docker's directories
//! `certs.d/<host[:port]>/*.crt`. A host that may be insecure and has no such directory is trusted
//! whoever vouches for it, as docker does: plain http would be allowed too. A certificate that is
//! there and cannot be used is an error that names it, never a silent fallback.
//!
//! Client certificates (`*.cert`, `*.key`) are not read.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tracing::debug;

use crate::registry::Error;
use crate::registry::Options;
use crate::registry::Result;
use crate::registry::host::Host;

const EXTENSION: &str = "crt";

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Everyone's: the host may be insecure.
    Anyone,
    /// Those of the machine's authorities and of these, in DER.
    Authorities(Vec<Vec<u8>>),
}

impl Trust {
    /// Returns whom to believe about `host`.
    pub(super) fn of(host: &Host, options: &Options) -> Result<Self> {
        let mut certificates = Vec::new();
        for dir in &options.certs_dirs {
            for name in host.certificate_names() {
                certificates.extend(in_directory(&dir.join(name))?);
            }
        }
        if certificates.is_empty() && host.is_insecure(&options.insecure) {
            return Ok(Self::Anyone);
        }
        Ok(Self::Authorities(certificates))
    }

    /// Returns the certificates that are believed besides those of the machine, in DER.
    pub(super) fn extra(&self) -> &[Vec<u8>] {
        match self {
            Self::Anyone => &[],
            Self::Authorities(certificates) => certificates,
        }
    }
}

/// Returns the certificates in a directory, none where there is no such directory.
fn in_directory(dir: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_closed(&error) => {
            // What other users keep for themselves is not meant for this one: podman skips it too.
            debug!(?dir, %error, "no certificates read");
            return Ok(Vec::new());
        }
        Err(error) => return Err(unusable(dir, &error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(|error| unusable(dir, &error))?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == EXTENSION));
    files.sort();
    Ok(files.iter().map(in_file).collect::<Result<Vec<_>>>()?.concat())
}

fn is_closed(error: &io::Error) -> bool {
    let closed =
        [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::PermissionDenied];
    closed.contains(&error.kind())
}

/// Returns the certificates in a PEM file, each one checked to be of use.
fn in_file(file: &PathBuf) -> Result<Vec<Vec<u8>>> {
    let pem = fs::read(file).map_err(|error| unusable(file, &error))?;
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(file, &error))?;
        let mut store = RootCertStore::empty();
        store.add(certificate.clone()).map_err(|error| unusable(file, &error))?;
        certificates.push(certificate.to_vec());
    }
    if certificates.is_empty() {
        return Err(unusable(file, &"it has no PEM certificate"));
    }
    Ok(certificates)
}

fn unusable(path: &Path, reason: &dyn ToString) -> Error {
    Error::Certificate { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Reference;

    /// A certificate authority that was made for this test and signs nothing.
    const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBljCCAT2gAwIBAgIUK8Cn+GiDaeonu3yEXe9GphQUhjMwCgYIKoZIzj0EAwIw
IDEeMBwGA1UEAwwVc3RyYXRhLXRlc3QtYXV0aG9yaXR5MCAXDTI2MTEyMTAxMzQ0
N1oYDzIxMjYxMDI4MDEzNDQ3WjAgMR4wHAYDVQQDDBVzdHJhdGEtdGVzdC1hdXRo
b3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQBWSi1l7bmBTkVZX3B9PtD
3zVpzFtAJLWQJvLRjeckWO5yGAh6dIv2SA5zMEkbX6O48ZK9UOAD0UKfnt+19wJX
o1MwUTAdBgNVHQ4EFgQUBM+oTYqyu5aTqMdR1wCgokp8JhYwHwYDVR0jBBgwFoAU
BM+oTYqyu5aTqMdR1wCgokp8JhYwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQD
AgNHADBEAiA2Ea/EbsPIr4hdgF7AsKdO0DuLLHHKM4M8wrEM7H/NiwIgO4dYcNgP
P/X9zUZsu4a51Yql8n2ZpySGwjgAlW198HU=
-----END CERTIFICATE-----
";

    fn host(domain: &str) -> Host {
        Host::of(&Reference::parse(&format!("{domain}/a")).expect(domain))
    }

    fn trust(file: &str, content: &str, domain: &str) -> Result<Trust> {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("127.0.0.1:5000")).expect("a directory");
        fs::write(dir.path().join("127.0.0.1:5000").join(file), content).expect("a file");
        let certs_dirs = vec![dir.path().to_owned(), dir.path().join("missing")];
        Trust::of(&host(domain), &Options { certs_dirs, ..Options::default() })
    }

    #[test]
    fn a_host_with_certificates_is_verified_even_on_loopback() {
        let twice = AUTHORITY.repeat(2);
        // (file, content, host, number of authorities, none where anyone is trusted)
        let table = [
            ("ca.crt", AUTHORITY, "127.0.0.1:5000", Some(1)),
            ("ca.crt", &twice, "127.0.0.1:5000", Some(2)),
            ("client.cert", "no certificate", "127.0.0.1:5000", None),
            ("ca.crt", AUTHORITY, "127.0.0.1:5001", None),
            ("ca.crt", AUTHORITY, "example.com", Some(0)),
        ];
        for (file, content, domain, expected) in table {
            let found = match trust(file, content, domain).expect(domain) {
                Trust::Anyone => None,
                Trust::Authorities(certificates) => Some(certificates.len()),
            };
            assert_eq!(found, expected, "{file} {domain}");
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_named() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for content in ["", "no certificate", broken] {
            let error = trust("ca.crt", content, "127.0.0.1:5000").expect_err(content);
            assert!(error.to_string().contains("127.0.0.1:5000/ca.crt"), "{error}");
        }
    }
}
