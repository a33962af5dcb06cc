//! A registry that misbehaves: a proxy before a real one, or a server that only answers what a test
//! says. It ends with its value, together with every connection to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::common::http::Head;

const TLS_HANDSHAKE: u8 = 0x16;

/// A request that came, without its body.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Method and target: `GET /v2/`.
    pub(crate) line: String,
    /// How many requests with this line came before.
    pub(crate) before: usize,
    head: Head,
}

impl Request {
    /// Returns a header, empty where it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.head.header(name)
    }

    /// Says whether it asks for the content of a blob.
    pub(crate) fn is_blob(&self) -> bool {
        self.line.starts_with("GET ") && self.line.contains("/blobs/sha256:")
    }

    /// Says whether it asks for a manifest.
    pub(crate) fn is_manifest(&self) -> bool {
        self.line.starts_with("GET ") && self.line.contains("/manifests/")
    }
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing: the real registry answers.
    None,
    /// This is the answer: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The real registry answers, but the body is changed.
    Damage,
    /// The connection ends after so many bytes of the body.
    Cut(u64),
    /// After so many bytes of the body there come no more; [`Faults::stalled`] hears of it.
    Stall(u64),
}

impl Fault {
    /// Returns an answer in JSON.
    pub(crate) fn answer(status: u16, body: &str) -> Self {
        let json = ("content-type", "application/json".to_owned());
        Self::Answer(status, vec![json], body.as_bytes().to_vec())
    }

    /// Returns the error document of a registry.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
        Self::answer(status, &body.to_string())
    }

    /// Adds a header to an answer.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Answer(_, headers, _) = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }
}

type Rule = dyn Fn(&Request) -> Fault + Send + Sync;

/// What the threads of the server share.
struct Shared {
    upstream: Option<String>,
    rule: Box<Rule>,
    stalled: Sender<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    log: Vec<Request>,
    connections: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
    is_ending: bool,
}

/// The registry that misbehaves.
pub(crate) struct Faults {
    address: SocketAddr,
    shared: Arc<Shared>,
    stalled: Receiver<()>,
    listener: Option<JoinHandle<()>>,
}

impl Faults {
    /// Starts a proxy before the registry at `upstream`.
    pub(crate) fn before(
        upstream: &str,
        rule: impl Fn(&Request) -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(upstream.to_owned()), Box::new(rule))
    }

    /// Starts a server with no registry behind it.
    pub(crate) fn alone(rule: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Self {
        Self::start(None, Box::new(rule))
    }

    fn start(upstream: Option<String>, rule: Box<Rule>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, stalled) = channel();
        let shared = Arc::new(Shared { upstream, rule, stalled: sender, state: Mutex::default() });
        let of_thread = Arc::clone(&shared);
        let listener = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if !of_thread.accept(stream) {
                    return;
                }
            }
        });
        Self { address, shared, stalled, listener: Some(listener) }
    }

    /// Returns host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns a reference to an image there.
    pub(crate) fn image(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Returns the requests so far that `is_wanted` chooses.
    pub(crate) fn requests(&self, is_wanted: impl Fn(&Request) -> bool) -> Vec<Request> {
        let state = self.shared.state.lock().unwrap();
        state.log.iter().filter(|request| is_wanted(request)).cloned().collect()
    }

    /// Waits until an answer has stalled.
    pub(crate) fn stalled(&self) {
        self.stalled.recv().expect("the server runs");
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().is_ending = true;
        // The connection wakes the thread, which then ends.
        drop(TcpStream::connect(self.address));
        drop(self.listener.take().map(JoinHandle::join));
        let mut state = self.shared.state.lock().unwrap();
        for stream in state.connections.drain(..) {
            // One that is closed already is what is wanted.
            drop(stream.shutdown(Shutdown::Both));
        }
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        for ended in threads.into_iter().map(JoinHandle::join) {
            assert!(ended.is_ok() || thread::panicking(), "a thread of the server panicked");
        }
    }
}

impl Shared {
    /// Serves a connection in a thread of its own; says whether there are to be more.
    fn accept(self: &Arc<Self>, stream: TcpStream) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.is_ending {
            return false;
        }
        state.connections.push(stream.try_clone().unwrap());
        let shared = Arc::clone(self);
        // A client that breaks off is part of the tests.
        state.threads.push(thread::spawn(move || drop(shared.serve(stream))));
        true
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        if reader.fill_buf()?.first() == Some(&TLS_HANDSHAKE) {
            return reader.get_ref().shutdown(Shutdown::Both);
        }
        let Some(head) = Head::read(&mut reader) else { return Ok(()) };
        let request = self.note(head);
        match (self.rule)(&request) {
            Fault::Answer(status, headers, body) => {
                let discarded = std::io::copy(
                    &mut reader.by_ref().take(request.head.length()),
                    &mut std::io::sink(),
                );
                discarded?;
                answer(&request, (status, headers, body), reader.get_mut())?;
            }
            fault => self.forward(&request, &fault, &mut reader)?,
        }
        reader.get_ref().shutdown(Shutdown::Both)
    }

    fn note(&self, head: Head) -> Request {
        let line = head.line.trim_end_matches(" HTTP/1.1").to_owned();
        let mut state = self.state.lock().unwrap();
        let before = state.log.iter().filter(|request| request.line == line).count();
        let request = Request { line, before, head };
        state.log.push(request.clone());
        request
    }

    /// Lets the real registry answer, and spoils the answer.
    fn forward(
        &self,
        request: &Request,
        fault: &Fault,
        client: &mut BufReader<TcpStream>,
    ) -> std::io::Result<()> {
        let upstream = self.upstream.as_ref().expect("a registry to ask");
        let mut server = TcpStream::connect(upstream)?;
        request.head.write(&mut server)?;
        std::io::copy(&mut client.by_ref().take(request.head.length()), &mut server)?;
        let mut answered = BufReader::new(server);
        let Some(head) = Head::read(&mut answered) else { return Ok(()) };
        head.write(client.get_mut())?;
        let limit = match fault {
            Fault::Cut(limit) | Fault::Stall(limit) => *limit,
            _ => u64::MAX,
        };
        let mut body = answered.take(limit);
        if matches!(fault, Fault::Damage) {
            let mut first = [0];
            body.read_exact(&mut first)?;
            client.get_mut().write_all(&[!first[0]])?;
        }
        std::io::copy(&mut body, client.get_mut())?;
        if matches!(fault, Fault::Stall(_)) {
            self.stalled.send(()).expect("the server runs");
            // Nothing more comes from the client but its end.
            std::io::copy(client, &mut std::io::sink())?;
        }
        Ok(())
    }
}

/// Answers a request without asking the registry.
fn answer(
    request: &Request,
    (status, headers, body): (u16, Vec<(&'static str, String)>, Vec<u8>),
    to: &mut TcpStream,
) -> std::io::Result<()> {
    let mut head = Head { line: format!("HTTP/1.1 {status} Status"), headers: Vec::new() };
    let length = ("content-length", body.len().to_string());
    for (name, value) in headers.into_iter().chain([length]) {
        head.headers.push((name.to_owned(), value));
    }
    head.write(to)?;
    if request.line.starts_with("HEAD ") { Ok(()) } else { to.write_all(&body) }
}
