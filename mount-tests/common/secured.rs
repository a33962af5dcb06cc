//! What a registry that trusts not everyone stands on: certificates, logins, and a token server.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::common::http::{base64, base64_url};
use crate::common::{Fault, Faults, Registry, spawn, succeed};

pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "s3cret";
const SERVICE: &str = "test-registry";
const ISSUER: &str = "test-issuer";

fn openssl(folder: &Path, arguments: &str) {
    succeed(Command::new("openssl").args(arguments.split(' ')).current_dir(folder));
}

fn new_folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("strata-registry-").tempdir().unwrap()
}

/// Makes the certificate of an authority, `ca.pem`.
pub(crate) fn make_authority(folder: &Path) {
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let what = "-keyout ca.key -out ca.pem -subj /CN=test-ca";
    let extension = "-addext basicConstraints=critical,CA:TRUE";
    openssl(folder, &format!("req -x509 {new} {what} {extension}"));
}

/// Starts a registry on loopback whose certificate an authority of the test has signed, and returns
/// it with the certificate of the authority.
pub(crate) fn with_tls() -> (Registry, Vec<u8>) {
    let folder = new_folder();
    make_authority(folder.path());
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(folder.path(), &format!("req {new} -keyout key.pem -out leaf.csr -subj /CN=registry"));
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n\
                 extendedKeyUsage=serverAuth\n";
    fs::write(folder.path().join("names"), names).unwrap();
    let authority = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
    openssl(folder.path(), &format!("x509 -req -in leaf.csr {authority} -out cert.pem"));
    let certificate = fs::read(folder.path().join("ca.pem")).unwrap();
    let configuration = "http: {addr: '127.0.0.1:0', tls: {certificate: FOLDER/cert.pem, key: \
                         FOLDER/key.pem}}\n";
    (Registry::start_in(folder, configuration), certificate)
}

/// Starts a registry that wants user and password.
pub(crate) fn with_login() -> Registry {
    let folder = new_folder();
    let logins = succeed(Command::new("htpasswd").args(["-Bbn", "-C", "4", USER, PASSWORD]));
    fs::write(folder.path().join("htpasswd"), logins).unwrap();
    let configuration = "auth: {htpasswd: {realm: test, path: FOLDER/htpasswd}}\n";
    Registry::start_in(folder, configuration)
}

/// Starts a registry that wants a token, and the server that gives it: to the user one for
/// everything, to anyone one for pulling.
pub(crate) fn with_tokens() -> (Registry, Faults) {
    let folder = new_folder();
    let new = "-newkey rsa:2048 -nodes -days 2 -keyout token.key -out token.pem -subj /CN=tokens";
    openssl(folder.path(), &format!("req -x509 {new}"));
    let path = folder.path().to_owned();
    let server = Faults::alone(move |request| {
        let login = format!("Basic {}", base64(format!("{USER}:{PASSWORD}").as_bytes()));
        let may_push = match request.header("authorization") {
            "" => false,
            given if given == login => true,
            _ => return Fault::answer(401, r#"{"details": "incorrect username or password"}"#),
        };
        let token = token(&path, &request.line, may_push);
        Fault::answer(200, &json!({"token": token, "expires_in": 300}).to_string())
    });
    let configuration = format!(
        "auth: {{token: {{realm: 'http://{}/token', service: {SERVICE}, issuer: {ISSUER}, \
         rootcertbundle: FOLDER/token.pem}}}}\n",
        server.host()
    );
    (Registry::start_in(folder, &configuration), server)
}

/// Returns the token for what a request asks for: `GET /token?service=…&scope=…`.
fn token(folder: &Path, request: &str, may_push: bool) -> String {
    let query = request.split_once('?').map_or("", |(_, query)| query);
    let scopes = query.split('&').filter_map(|word| word.strip_prefix("scope="));
    let access: Vec<_> = scopes.map(|scope| access(scope, may_push)).collect();
    let pem = fs::read_to_string(folder.join("token.pem")).unwrap();
    let certificate: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": USER, "jti": "1", "access": access,
        "iat": now, "nbf": now - 60, "exp": now + 300,
    });
    let part = |value: &Value| base64_url(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&head), part(&claims));
    let signature = sign(folder, signed.as_bytes());
    format!("{signed}.{}", base64_url(&signature))
}

/// Returns what a token says of a scope: `repository:team/app:pull,push`.
fn access(scope: &str, may_push: bool) -> Value {
    let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    let words: Vec<_> = scope.split(':').collect();
    let actions: Vec<_> =
        words[2].split(',').filter(|action| may_push || *action == "pull").collect();
    json!({"type": words[0], "name": words[1], "actions": actions})
}

/// Signs bytes with the key of the token server.
fn sign(folder: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-sign", "token.key"]).current_dir(folder);
    let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    child.stdin.take().expect("it is piped").write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl signs nothing");
    output.stdout
}
