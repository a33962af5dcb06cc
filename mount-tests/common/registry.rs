//! A real registry on loopback, and the tools of other projects that fill it and empty it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::{run, spawn};

/// A docker-registry of its own for one test; it ends with the value.
#[derive(Debug)]
pub(crate) struct Registry {
    server: Child,
    host: String,
    folder: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry that speaks plain HTTP to anyone.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// Starts a registry with more in its configuration, which is YAML; `FOLDER` in it is replaced
    /// by its own folder.
    pub(crate) fn with(configuration: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("strata-registry-").tempdir().unwrap();
        Self::start_in(folder, configuration)
    }

    /// Starts a registry in a folder that holds what its configuration names.
    pub(crate) fn start_in(folder: tempfile::TempDir, configuration: &str) -> Self {
        let path = folder.path().to_str().unwrap();
        let http =
            if configuration.contains("http: ") { "" } else { "http: {addr: '127.0.0.1:0'}\n" };
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: FOLDER/data}}, delete: \
             {{enabled: true}}}}\n{http}{configuration}"
        );
        fs::write(folder.path().join("config.yml"), text.replace("FOLDER", path)).unwrap();
        let log = File::create(folder.path().join("requests")).unwrap();
        let mut server = spawn(
            Command::new("docker-registry")
                .arg("serve")
                .arg(folder.path().join("config.yml"))
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(Stdio::piped()),
        );
        let mut said = BufReader::new(server.stderr.take().expect("it is piped"));
        let host = address(&mut said);
        // What it says from now on is read, so that it never waits for room in the pipe.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { server, host, folder }
    }

    /// Returns the registry's host and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns a reference to an image in the registry.
    pub(crate) fn image(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }

    /// Returns the requests it has answered so far, such as `GET /v2/ 200`.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("requests")).unwrap();
        log.lines().filter_map(request).collect()
    }

    /// Returns the requests since `before` of them that changed the registry's blobs.
    pub(crate) fn uploads_since(&self, before: usize) -> Vec<String> {
        let changes = self.requests().split_off(before);
        changes
            .into_iter()
            .filter(|r| !r.starts_with("GET") && r.contains("/blobs/uploads"))
            .collect()
    }

    /// Returns the file in which it keeps a blob.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
        let blobs = self.folder.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Copies an image into the registry with skopeo, from what skopeo calls its source.
    pub(crate) fn fill(&self, source: &str, image: &str, options: &[&str]) {
        let target = format!("docker://{}", self.image(image));
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]).args(options);
        succeed(command.args([source, &target]));
    }

    /// Copies an image out of the registry with skopeo, into an OCI layout.
    pub(crate) fn fetch(&self, image: &str, layout: &Path) {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"]);
        let target = format!("oci:{}:latest", layout.display());
        succeed(command.args([&format!("docker://{}", self.image(image)), &target]));
    }

    /// Returns what skopeo finds under a name: the manifest or the index, byte for byte.
    pub(crate) fn raw(&self, image: &str) -> String {
        let name = format!("docker://{}", self.image(image));
        let mut command = Command::new("skopeo");
        succeed(command.args(["inspect", "--raw", "--tls-verify=false", &name]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = self.server.kill().and_then(|()| self.server.wait()) {
            eprintln!("docker-registry {} stays: {error}", self.server.id());
        }
    }
}

/// Reads the log of a starting registry until it says where it listens.
fn address(log: &mut impl BufRead) -> String {
    let mut said = String::new();
    for line in log.lines() {
        let line = line.unwrap();
        if let Some((_, rest)) = line.split_once("msg=\"listening on ") {
            return rest.split(['"', ',']).next().expect("it is not empty").to_owned();
        }
        said.push_str(&line);
    }
    panic!("docker-registry ended: {said}");
}

/// Returns method, target and status of a line of the common log format.
fn request(line: &str) -> Option<String> {
    let mut parts = line.split('"');
    let request = parts.nth(1)?.rsplit_once(' ')?.0;
    let status = parts.next()?.split_whitespace().next()?;
    Some(format!("{request} {status}"))
}

/// Runs another program, which must succeed, and returns what it wrote to standard output.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.code, 0, "{command:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}
