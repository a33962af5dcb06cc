//! As much of HTTP/1.1 as a registry and its clients speak with each other: one request for each
//! connection, bodies with a length. Also base64, in which they write logins and tokens.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// What comes before the body of a request or an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// The first line: `GET /v2/ HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub(crate) line: String,
    /// The headers in their order, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; none where the connection ends before it does.
    pub(crate) fn read(from: &mut impl BufRead) -> Option<Self> {
        let mut lines = Vec::new();
        for line in from.lines() {
            match line {
                Ok(line) if line.is_empty() => break,
                Ok(line) => lines.push(line),
                Err(_) => return None,
            }
        }
        let (line, headers) = lines.split_first()?;
        let headers = headers.iter().filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        Some(Self { line: line.clone(), headers: headers.collect() })
    }

    /// Returns a header, empty where it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// Returns the length of the body.
    pub(crate) fn length(&self) -> u64 {
        self.header("content-length").parse().unwrap_or(0)
    }

    /// Returns the status of an answer.
    pub(crate) fn status(&self) -> u16 {
        let status = self.line.split(' ').nth(1).unwrap_or_default();
        status.parse().unwrap_or_else(|_| panic!("no answer: {:?}", self.line))
    }

    /// Writes the head, of the only message on its connection.
    pub(crate) fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        write!(to, "{}\r\n", self.line)?;
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "connection") {
            write!(to, "{name}: {value}\r\n")?;
        }
        to.write_all(b"connection: close\r\n\r\n")
    }
}

/// Sends a request to a host and returns the answer, which must be a good one.
#[track_caller]
pub(crate) fn send(host: &str, request: &str, media_type: &str, body: &[u8]) -> (Head, Vec<u8>) {
    let head = Head {
        line: format!("{request} HTTP/1.1"),
        headers: vec![
            ("host".to_owned(), host.to_owned()),
            ("content-type".to_owned(), media_type.to_owned()),
            ("accept".to_owned(), media_type.to_owned()),
            ("content-length".to_owned(), body.len().to_string()),
        ],
    };
    let mut stream = TcpStream::connect(host).unwrap();
    head.write(&mut stream).unwrap();
    stream.write_all(body).unwrap();
    let mut reader = BufReader::new(stream);
    let answer = Head::read(&mut reader).expect("an answer");
    let mut content = Vec::new();
    reader.read_to_end(&mut content).unwrap();
    let said = String::from_utf8_lossy(&content);
    assert!((200..300).contains(&answer.status()), "{request}: {} {said}", answer.line);
    (answer, content)
}

/// Writes bytes in base64, in the alphabet that ends with these two.
fn encode(bytes: &[u8], last: [u8; 2]) -> String {
    let letters = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(last);
    let alphabet: Vec<char> = letters.map(char::from).collect();
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..=three.len() {
            text.push(alphabet[(bits >> (18 - 6 * at) & 63) as usize]);
        }
    }
    text
}

/// Writes bytes in base64, as a login is sent.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let text = encode(bytes, [b'+', b'/']);
    let padding = "=".repeat((4 - text.len() % 4) % 4);
    format!("{text}{padding}")
}

/// Writes bytes in base64 without padding, as they stand in a token.
pub(crate) fn base64_url(bytes: &[u8]) -> String {
    encode(bytes, [b'-', b'_'])
}
