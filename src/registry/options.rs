//! `Options`: what a program run says about registries, and the defaults docker has.
//!
//! The environment is read here and nowhere else in the room, the proxy variables excepted, which
//! the HTTP client reads.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

const ATTEMPTS: u32 = 5;
const BASE_DELAY: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("strata/", env!("CARGO_PKG_VERSION"));

/// How to talk to registries.
#[derive(Clone, Debug)]
pub struct Options {
    /// Registries that may be talked to without TLS or with a certificate nobody vouches for:
    /// `host`, `host:port`, `*.domain` or a network as `10.0.0.0/8`. Loopback always is one.
    pub insecure: Vec<String>,
    /// The directory with docker's `config.json`; `None` looks for no such file.
    pub docker_config_dir: Option<PathBuf>,
    /// Where podman keeps logins; the first file with one for the registry is used, after docker's.
    pub podman_auth_files: Vec<PathBuf>,
    /// Directories with certificates in a directory for each registry, `<host[:port]>/*.crt`.
    pub certs_dirs: Vec<PathBuf>,
    /// How often a request is tried without progress before its error is reported; at least once.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles from then on.
    pub base_delay: Duration,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a connection may be silent; a small answer may take five times as long in all.
    pub read_timeout: Duration,
    /// What strata calls itself.
    pub user_agent: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            docker_config_dir: docker_config_dir(),
            podman_auth_files: podman_auth_files(),
            certs_dirs: certs_dirs(),
            attempts: ATTEMPTS,
            base_delay: BASE_DELAY,
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: READ_TIMEOUT,
            user_agent: USER_AGENT,
        }
    }
}

impl Options {
    /// Returns how long an answer that must fit into memory may take in all.
    pub(super) const fn answer_timeout(&self) -> Duration {
        self.read_timeout.saturating_mul(5)
    }
}

fn docker_config_dir() -> Option<PathBuf> {
    let from_home = || env::home_dir().map(|home| home.join(".docker"));
    path_from_env("DOCKER_CONFIG").or_else(from_home)
}

/// Returns the places that podman documents: the named file alone, or the run-time directory and
/// the configuration directory.
fn podman_auth_files() -> Vec<PathBuf> {
    if let Some(file) = path_from_env("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let run_time = path_from_env("XDG_RUNTIME_DIR");
    let from_home = || env::home_dir().map(|home| home.join(".config"));
    let config = path_from_env("XDG_CONFIG_HOME").or_else(from_home);
    run_time.into_iter().chain(config).map(|dir| dir.join("containers/auth.json")).collect()
}

fn certs_dirs() -> Vec<PathBuf> {
    let home = env::home_dir();
    let of_home = [".docker/certs.d", ".config/containers/certs.d"];
    let of_home = home.iter().flat_map(|home| of_home.map(|dir| home.join(dir)));
    let of_machine = ["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from);
    of_machine.into_iter().chain(of_home).collect()
}

fn path_from_env(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
