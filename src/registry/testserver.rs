//! A registry for tests: an HTTP server on loopback that answers what a test tells it to.
//!
//! One request for each connection, one thread for each connection. It knows no protocol beyond
//! HTTP; each test scripts the faults it is about. A connection that begins with a TLS handshake is
//! closed, as a server without TLS does.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;

use crate::image::Reference;
use crate::registry::Options;
use crate::registry::Registry;

const TLS_HANDSHAKE: u8 = 0x16;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Method and target: `GET /v2/`.
    pub(super) line: String,
    /// Headers, names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    /// The body.
    pub(super) body: Vec<u8>,
    /// How many requests with this line came before.
    pub(super) before: usize,
}

impl Request {
    /// Returns a header, empty where it is missing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns where the range asked for begins.
    pub(super) fn range_start(&self) -> usize {
        let range = self.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-'));
        range.map_or(0, |start| start.parse().expect("a number"))
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    sent_bytes: usize,
    is_silent: bool,
    is_slow: bool,
}

impl Reply {
    /// Returns an answer with this status and body.
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let (headers, sent_bytes) = (Vec::new(), body.len());
        Self { status, headers, sent_bytes, body, is_silent: false, is_slow: false }
    }

    /// Returns an answer with the error document of a registry.
    pub(super) fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!(r#"{{"errors":[{{"code":"{code}","message":"said so"}}]}}"#))
    }

    /// Adds a header.
    pub(super) fn header(self, name: &str, value: &str) -> Self {
        self.header_bytes(name, value.as_bytes())
    }

    /// Adds a header that need not be text.
    pub(super) fn header_bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the body byte by byte, each a moment after the one before, until the client gives up.
    pub(super) fn in_drops(mut self) -> Self {
        self.is_slow = true;
        self
    }

    /// Sends only the first bytes of the body and breaks the connection.
    pub(super) fn cut(mut self, sent_bytes: usize) -> Self {
        self.sent_bytes = sent_bytes.min(self.body.len());
        self
    }

    /// Sends only the first bytes of the body and then nothing, until the client gives up.
    pub(super) fn silent_after(mut self, sent_bytes: usize) -> Self {
        self.is_silent = true;
        self.cut(sent_bytes)
    }

    fn write(&self, stream: &mut TcpStream, is_head: bool) -> std::io::Result<()> {
        let len = self.body.len();
        write!(stream, "HTTP/1.1 {} Status\r\ncontent-length: {len}\r\n", self.status)?;
        for (name, value) in &self.headers {
            stream.write_all(&[name.as_bytes(), b": ", value, b"\r\n"].concat())?;
        }
        stream.write_all(b"connection: close\r\n\r\n")?;
        if self.is_slow {
            return drip(stream, &self.body);
        }
        if !is_head {
            stream.write_all(&self.body[..self.sent_bytes])?;
        }
        stream.flush()?;
        if self.is_silent {
            stream.read_to_end(&mut Vec::new())?;
        }
        Ok(())
    }
}

/// Sends bytes one by one. Between them it is waited for the client to go.
fn drip(stream: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    for byte in body {
        stream.write_all(&[*byte])?;
        if matches!(stream.read(&mut [0]), Ok(0)) {
            break;
        }
    }
    Ok(())
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server that runs until it is dropped.
pub(super) struct TestServer {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    is_ending: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl TestServer {
    /// Starts a server that answers with `handler`.
    pub(super) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (log, is_ending) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (shared_log, shared_end) = (Arc::clone(&log), Arc::clone(&is_ending));
        let handler: Arc<Handler> = Arc::new(handler);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if shared_end.load(Ordering::SeqCst) {
                    return;
                }
                let (log, handler) = (Arc::clone(&shared_log), Arc::clone(&handler));
                let stream = stream.expect("a connection");
                thread::spawn(move || serve(stream, &log, &*handler));
            }
        });
        Self { address, log, is_ending, thread: Some(thread) }
    }

    /// Returns `host:port`.
    pub(super) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns a reference to `name` on this server.
    pub(super) fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.address)).expect("valid")
    }

    /// Returns the requests so far whose line begins with `start`.
    pub(super) fn requests(&self, start: &str) -> Vec<Request> {
        self.log.lock().iter().filter(|request| request.line.starts_with(start)).cloned().collect()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::SeqCst);
        // The connection wakes the thread; where it fails the thread has ended already.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || thread::panicking(), "the test server panicked");
        }
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, handler: &Handler) {
    let mut reader = BufReader::new(stream);
    let Some(mut request) = read_request(&mut reader) else { return };
    {
        let mut log = log.lock();
        request.before = log.iter().filter(|old| old.line == request.line).count();
        log.push(request.clone());
    }
    let is_head = request.line.starts_with("HEAD ");
    // A client that has gone needs no answer.
    drop(handler(&request).write(reader.get_mut(), is_head));
}

/// Reads a request; none where the connection brings none.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    if reader.fill_buf().map_or(true, |bytes| [None, Some(&TLS_HANDSHAKE)].contains(&bytes.first()))
    {
        return None;
    }
    let lines: Vec<String> = reader
        .by_ref()
        .lines()
        .map_while(|line| line.into_iter().find(|line| !line.is_empty()))
        .collect();
    let (line, headers) = lines.split_first()?;
    let headers: BTreeMap<_, _> = headers
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let len = headers.get("content-length").map_or(0, |len| len.parse().expect("a number"));
    let mut body = vec![0; len];
    if reader.read_exact(&mut body).is_err() {
        return None;
    }
    let line = line.trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, headers, body, before: 0 })
}

/// Returns options that are quick to give up and read nothing of the machine.
pub(super) fn options() -> Options {
    Options {
        docker_config_dir: None,
        podman_auth_files: Vec::new(),
        certs_dirs: Vec::new(),
        attempts: 3,
        base_delay: Duration::from_micros(1),
        read_timeout: Duration::from_secs(20),
        ..Options::default()
    }
}

/// Returns a registry client with a login for the server, a field of docker's `config.json`, and
/// the directory of that file, which must stay until the first request.
pub(super) fn registry_with_login(server: &TestServer, field: &str) -> (Registry, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = format!(r#"{{"auths":{{"{}":{{{field}}}}}}}"#, server.host());
    std::fs::write(dir.path().join("config.json"), config).expect("a file");
    let docker_config_dir = Some(dir.path().to_owned());
    let registry = Registry::new(Options { docker_config_dir, ..options() }).expect("threads");
    (registry, dir)
}

/// Returns a registry client with those options.
pub(super) fn registry() -> Registry {
    Registry::new(options()).expect("threads")
}
