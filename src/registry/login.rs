//! Logging in and out: asking a registry whether it takes a login, and keeping it where docker does.
//!
//! The login goes to the credential helper that docker's `config.json` names for the registry, or into
//! that file. The file is replaced as a whole, readable by its owner alone; what strata does not know
//! in it stays.

use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::image::DEFAULT_DOMAIN;
use crate::image::Reference;
use crate::registry::Error;
use crate::registry::Options;
use crate::registry::Result;
use crate::registry::host::Host;

const FILE: &str = "config.json";
const OWNER_ONLY: u32 = 0o600;
const OWNER_ONLY_DIR: u32 = 0o700;
/// Names that people give docker's own registry.
const HUB_NAMES: [&str; 4] = ["", "docker.io", "index.docker.io", "registry-1.docker.io"];

/// A registry as a person names it to log in: `localhost:5000`, `https://example.org/v1/`, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    host: Host,
    name: String,
}

impl Server {
    /// Returns the registry that a text names.
    ///
    /// # Errors
    /// The text is no name of a host.
    pub fn parse(text: &str) -> Result<Self> {
        let name = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let name = name.unwrap_or(text).split('/').next().unwrap_or_default();
        let domain = if HUB_NAMES.contains(&name) { DEFAULT_DOMAIN } else { name };
        let invalid = || Error::ServerName(text.to_owned());
        let reference = Reference::parse(&format!("{domain}/x/y")).map_err(|_| invalid())?;
        // Without a dot, a colon or a capital letter it would be a part of the path.
        let host =
            if reference.domain() == domain { Host::of(&reference) } else { return Err(invalid()) };
        let name = host.login_keys().first().copied().unwrap_or(name).to_owned();
        Ok(Self { host, name })
    }

    /// Returns the name under which its login is kept.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the host.
    pub(super) const fn host(&self) -> &Host {
        &self.host
    }
}

/// Where a login was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// With a credential helper.
    Helper,
    /// In a file, unencrypted.
    File(PathBuf),
    /// It was in a file already.
    Already,
}

/// Keeps a login for the next commands.
///
/// # Errors
/// The file is not docker's, cannot be written, or the helper does not take the login.
pub fn keep(options: &Options, server: &Server, user: &str, password: &str) -> Result<Kept> {
    let file = LoginFile::open(options)?;
    let mut config = file.read()?;
    let (entry, kept) = match helper_for(&config, &server.name) {
        Some(helper) => {
            let login = json!({"ServerURL": server.name, "Username": user, "Secret": password});
            run_helper(&helper, "store", &login.to_string())
                .map_err(|error| without(password, error))?;
            (json!({}), Kept::Helper)
        }
        None => {
            let auth = base64(format!("{user}:{password}").as_bytes());
            (json!({ "auth": auth }), Kept::File(file.path.clone()))
        }
    };
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    let Value::Object(auths) = auths else { return Err(file.broken("auths is not an object")) };
    let before = auths.insert(server.name.clone(), entry.clone());
    if kept != Kept::Helper && before == Some(entry) {
        return Ok(Kept::Already);
    }
    file.write(&config)?;
    Ok(kept)
}

/// Forgets a login. One that is not there is forgotten already.
///
/// # Errors
/// The file is not docker's, cannot be written, or the helper does not give the login up.
pub fn forget(options: &Options, server: &Server) -> Result<()> {
    let file = LoginFile::open(options)?;
    let mut config = file.read()?;
    if let Some(helper) = helper_for(&config, &server.name) {
        run_helper(&helper, "erase", &server.name)?;
    }
    let bare = &server.name;
    let mut removed = false;
    if let Some(Value::Object(auths)) = config.get_mut("auths") {
        for key in [bare.clone(), format!("http://{bare}"), format!("https://{bare}")] {
            removed |= auths.remove(&key).is_some();
        }
    }
    if removed { file.write(&config) } else { Ok(()) }
}

/// Returns a text that docker's `config.json` has under a name; none where there is none.
///
/// # Errors
/// The file is not docker's, or cannot be read.
pub fn setting(options: &Options, name: &str) -> Result<Option<String>> {
    if options.docker_config_dir.is_none() {
        return Ok(None);
    }
    let text = LoginFile::open(options)?.read()?.remove(name);
    Ok(text.and_then(|text| text.as_str().map(str::to_owned)))
}

/// Docker's `config.json`.
struct LoginFile {
    path: PathBuf,
}

impl LoginFile {
    fn open(options: &Options) -> Result<Self> {
        let dir = options.docker_config_dir.as_ref().ok_or(Error::NoLoginFile)?;
        let path = dir.join(FILE);
        // A link stays one: what it leads to is written.
        Ok(Self { path: fs::canonicalize(&path).unwrap_or(path) })
    }

    fn read(&self) -> Result<Map<String, Value>> {
        match fs::read(&self.path) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => Ok(Map::new()),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| self.broken(&format!("it is not a JSON object: {error}"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
            Err(source) => Err(self.io(source)),
        }
    }

    /// Replaces the file as a whole.
    fn write(&self, config: &Map<String, Value>) -> Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let made = fs::DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIR).create(dir);
        made.map_err(|source| self.io(source))?;
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        serde::Serialize::serialize(config, &mut serializer)
            .map_err(|error| self.io(io::Error::other(error)))?;
        let new = dir.join(format!("{FILE}.{}", std::process::id()));
        let written = write_new(&new, &bytes).and_then(|()| fs::rename(&new, &self.path));
        written.map_err(|source| {
            if let Err(error) = fs::remove_file(&new) {
                tracing::debug!("{}: {error}", new.display());
            }
            self.io(source)
        })
    }

    fn io(&self, source: io::Error) -> Error {
        Error::LoginFile { path: self.path.clone(), source }
    }

    fn broken(&self, reason: &str) -> Error {
        self.io(io::Error::new(io::ErrorKind::InvalidData, reason.to_owned()))
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(OWNER_ONLY).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Returns an error of a helper that does not repeat what is secret.
fn without(secret: &str, error: Error) -> Error {
    match error {
        Error::Helper { helper, reason } if !secret.is_empty() => {
            Error::Helper { helper, reason: reason.replace(secret, "…") }
        }
        error => error,
    }
}

/// Returns the helper that keeps the login of a host.
fn helper_for(config: &Map<String, Value>, name: &str) -> Option<String> {
    let own = config.get("credHelpers").and_then(|helpers| helpers.get(name));
    let helper = own.or_else(|| config.get("credsStore")).and_then(Value::as_str)?;
    (!helper.is_empty()).then(|| format!("docker-credential-{helper}"))
}

fn run_helper(helper: &str, verb: &str, input: &str) -> Result<()> {
    let failed = |reason: String| Error::Helper { helper: helper.to_owned(), reason };
    let mut command = Command::new(helper);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // One that reads nothing tells by its exit code whether it has done it.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(failed(error.to_string()));
            }
            _ => {}
        }
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&said).trim())))
}

/// Returns bytes in base64.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= group.len() { letter.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_a_helper_repeats_is_not_told() {
        let (helper, reason) = ("h".to_owned(), "exit 1: no room for user:pw".to_owned());
        let said = without("pw", Error::Helper { helper, reason }).to_string();
        assert_eq!(said, "credential helper h: exit 1: no room for user:…");
    }

    #[test]
    fn a_server_is_named_in_many_ways() {
        for (text, name) in [
            ("", "https://index.docker.io/v1/"),
            ("docker.io", "https://index.docker.io/v1/"),
            ("https://index.docker.io/v1/", "https://index.docker.io/v1/"),
            ("localhost:5000", "localhost:5000"),
            ("https://example.org/v1/", "example.org"),
            ("http://10.0.0.1:5000", "10.0.0.1:5000"),
        ] {
            assert_eq!(Server::parse(text).expect(text).name(), name, "{text}");
        }
        for text in ["nodot", "a b", "ex_ample.org:x"] {
            assert!(Server::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn base64_is_padded() {
        for (text, expected) in [
            ("", ""),
            ("a", "YQ=="),
            ("ab", "YWI="),
            ("abc", "YWJj"),
            ("user:secret", "dXNlcjpzZWNyZXQ="),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_login_is_kept_and_forgotten_and_the_rest_of_the_file_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("docker").join(FILE);
        let options =
            Options { docker_config_dir: Some(dir.path().join("docker")), ..Options::default() };
        let server = Server::parse("a.io").expect("a server");
        let kept = keep(&options, &server, "user", "secret").expect("it is kept");
        assert_eq!(kept, Kept::File(path.clone()));
        let read =
            || serde_json::from_slice::<Value>(&fs::read(&path).expect("a file")).expect("JSON");
        assert_eq!(read(), json!({"auths": {"a.io": {"auth": "dXNlcjpzZWNyZXQ="}}}));
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);

        fs::write(&path, r#"{"auths": {"b.io": {"x": 1}}, "psFormat": "y", "HttpHeaders": {}}"#)
            .expect("it is written");
        keep(&options, &server, "user", "secret").expect("it is kept");
        forget(&options, &server).expect("it is forgotten");
        forget(&options, &server).expect("it is not there");
        let rest = json!({"auths": {"b.io": {"x": 1}}, "psFormat": "y", "HttpHeaders": {}});
        assert_eq!(read(), rest);

        fs::write(&path, "[]").expect("it is written");
        let error = keep(&options, &server, "user", "secret").expect_err("no object");
        assert!(error.to_string().contains(FILE), "{error}");
        assert_eq!(fs::read(&path).expect("a file"), b"[]");
    }
}
