//! `Credential`: the login a person has stored for a registry.
//!
//! It is looked for where docker keeps it (`config.json`: logins in the file, a helper for the
//! host, a helper for all), then where podman does. Nothing configured means anonymous; something
//! configured that cannot be had is an error that names the file. `login` writes what is read here.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use docker_credential::CredentialRetrievalError;
use docker_credential::DockerCredential;
use docker_credential::get_credential_from_reader;

use crate::registry::Error;
use crate::registry::Options;
use crate::registry::Result;
use crate::registry::host::Host;

const DOCKER_FILE: &str = "config.json";
/// What every helper prints where it has no login for a host.
const HELPER_HAS_NONE: &str = "credentials not found";

/// A login.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that the token server changes for another one ("refresh token").
    IdentityToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets stay out of logs.
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

/// Returns the login for `host`, `None` where none is configured.
pub(super) fn find(options: &Options, host: &Host) -> Result<Option<Credential>> {
    let docker = options.docker_config_dir.iter().map(|dir| dir.join(DOCKER_FILE));
    for file in docker.chain(options.podman_auth_files.iter().cloned()) {
        if let Some(credential) = in_file(&file, host)? {
            return Ok(Some(credential));
        }
    }
    Ok(None)
}

fn in_file(file: &Path, host: &Host) -> Result<Option<Credential>> {
    let content = match fs::read(file) {
        Ok(content) => content,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(source) => return Err(Error::LoginFile { path: file.to_owned(), source }),
    };
    login_in(&content, file, host)
}

/// Returns the login for `host` that the content of a file says.
pub(super) fn login_in(content: &[u8], file: &Path, host: &Host) -> Result<Option<Credential>> {
    for key in host.login_keys() {
        match get_credential_from_reader(content, key) {
            Ok(credential) => return Ok(usable(credential)),
            Err(error) if is_none(&error) => {}
            Err(error) => {
                let (host, path) = (host.address().to_owned(), file.to_owned());
                return Err(Error::Login { host, path, reason: reason(&error) });
            }
        }
    }
    Ok(None)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_none(error: &CredentialRetrievalError) -> bool {
    match error {
        CredentialRetrievalError::NoCredentialConfigured => true,
        CredentialRetrievalError::HelperFailure { stdout, .. } => stdout.contains(HELPER_HAS_NONE),
        _ => false,
    }
}

/// Returns the credential unless it is empty, as some helpers write what they do not have.
fn usable(credential: DockerCredential) -> Option<Credential> {
    match credential {
        DockerCredential::IdentityToken(token) if token.is_empty() => None,
        DockerCredential::IdentityToken(token) => Some(Credential::IdentityToken(token)),
        DockerCredential::UsernamePassword(user, _) if user.is_empty() => None,
        DockerCredential::UsernamePassword(user, password) => {
            Some(Credential::Password { user, password })
        }
    }
}

fn reason(error: &CredentialRetrievalError) -> String {
    match error {
        CredentialRetrievalError::HelperCommunicationError => {
            "its credential helper does not run: is it installed and in PATH?".to_owned()
        }
        CredentialRetrievalError::MalformedHelperResponse => {
            "its credential helper answers something else than a login".to_owned()
        }
        CredentialRetrievalError::HelperFailure { helper, stdout, stderr } => {
            let said = [stdout.trim(), stderr.trim()].join(" ");
            format!("{helper} ends with an error: {}", said.trim())
        }
        CredentialRetrievalError::CredentialDecodingError => {
            "its field auth is not base64 of user:password".to_owned()
        }
        CredentialRetrievalError::CredentialMismatchError => {
            "its field auth is not that of its fields username and password".to_owned()
        }
        _ => "the file is not JSON in the form of docker's config.json".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Reference;

    /// `user:secret` in base64.
    const AUTH: &str = "dXNlcjpzZWNyZXQ=";

    fn find_in(docker: &str, podman: &str, image: &str) -> Result<Option<Credential>> {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(DOCKER_FILE), docker).expect("a file");
        fs::write(dir.path().join("auth.json"), podman).expect("a file");
        let missing = dir.path().join("missing");
        let options = Options {
            docker_config_dir: Some(dir.path().to_owned()),
            podman_auth_files: vec![missing, dir.path().join("auth.json")],
            ..Options::default()
        };
        find(&options, &Host::of(&Reference::parse(image).expect(image)))
    }

    #[test]
    fn logins_are_found_where_docker_and_podman_keep_them() {
        let entry = |key: &str| format!(r#"{{"auths": {{"{key}": {{"auth": "{AUTH}"}}}}}}"#);
        let token = r#"{"auths": {"a.io": {"identitytoken": "t"}}}"#;
        let password = || Credential::Password { user: "user".into(), password: "secret".into() };
        let table = [
            ("{}", "{}", "a.io/x", None),
            (&entry("a.io"), "{}", "a.io/x", Some(password())),
            (&entry("https://a.io"), "{}", "a.io/x", Some(password())),
            (&entry("a.io:5000"), "{}", "a.io/x", None),
            ("{}", &entry("a.io"), "a.io/x", Some(password())),
            (&entry("https://index.docker.io/v1/"), "{}", "debian", Some(password())),
            ("{}", &entry("docker.io"), "debian", Some(password())),
            (token, "{}", "a.io/x", Some(Credential::IdentityToken("t".into()))),
            (r#"{"auths": {"a.io": {}}}"#, "{}", "a.io/x", None),
        ];
        for (docker, podman, image, expected) in table {
            assert_eq!(find_in(docker, podman, image).expect(image), expected, "{docker} {podman}");
        }
    }

    #[test]
    fn a_login_that_is_configured_but_cannot_be_had_is_an_error_that_names_the_file() {
        let table = [
            ("", "is not JSON"),
            ("{\"auths\": 1}", "is not JSON"),
            (r#"{"auths": {"a.io": {"auth": "!"}}}"#, "base64"),
            (r#"{"credsStore": "strata-has-no-such-helper"}"#, "does not run"),
            (r#"{"credHelpers": {"a.io": "strata-has-no-such-helper"}}"#, "does not run"),
        ];
        for (docker, expected) in table {
            let error = find_in(docker, "{}", "a.io/x").expect_err(docker).to_string();
            assert!(error.contains(expected) && error.contains(DOCKER_FILE), "{error}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let login = Credential::Password { user: "user".into(), password: "secret".into() };
        let token = Credential::IdentityToken("secret".into());
        assert!(!format!("{login:?} {token:?}").contains("secret"));
    }
}
