//! `Digest`, `DiffId`, `ChainId`: the names of content, and the hasher that makes them.
//!
//! Only sha256 is understood: it is the one algorithm that every registry and every image in use
//! has. A digest is kept as its 32 bytes, so that a wrong length cannot exist past the parser.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// Length of a sha256 digest in bytes.
pub const DIGEST_LEN: usize = 32;

/// The sha256 of some bytes: a blob, a file's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; DIGEST_LEN]);

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseDigestError {
    /// The text has no `algorithm:` prefix.
    #[error("{0:?} is not a digest: expected sha256:<64 hex digits>")]
    Form(String),
    /// The algorithm is not sha256.
    #[error("digest algorithm {0:?} is not supported: expected sha256")]
    Algorithm(String),
}

impl Digest {
    /// Returns the digest that has these bytes.
    pub const fn from_bytes(bytes: [u8; DIGEST_LEN]) -> Self {
        Self(bytes)
    }

    /// Returns the sha256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Returns the digest that has these 64 hex digits, lower case.
    ///
    /// # Errors
    /// The text is not 64 lower-case hex digits.
    pub fn from_hex(hex: &str) -> Result<Self, ParseDigestError> {
        let (pairs, rest) = hex.as_bytes().as_chunks();
        let mut bytes = [0; DIGEST_LEN];
        // Looked at once for all of them: an image has hundreds of digests.
        let mut all = 0;
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let [high, low] = [high, low].map(|digit| HEX_VALUES[usize::from(*digit)]);
            all |= high | low;
            *byte = high << 4 | low & 0xf;
        }
        match pairs.len() == DIGEST_LEN && rest.is_empty() && all != NO_DIGIT {
            true => Ok(Self(bytes)),
            false => Err(ParseDigestError::Form(hex.to_owned())),
        }
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; DIGEST_LEN] {
        &self.0
    }

    /// Returns the 64 hex digits without the algorithm: the form of a file name.
    pub fn hex(&self) -> String {
        let digits = self.0.map(|byte| [byte >> 4, byte & 15].map(|half| HEX[usize::from(half)]));
        str::from_utf8(digits.as_flattened()).unwrap_or_default().to_owned()
    }

    /// Returns the first 12 hex digits: the form that people see.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// What is in [`HEX_VALUES`] for what is no digit.
const NO_DIGIT: u8 = 0xff;

/// The value of each digit.
const HEX_VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[HEX[value as usize] as usize] = value;
        value += 1;
    }
    values
};

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let (algorithm, hex) =
            text.split_once(':').ok_or_else(|| ParseDigestError::Form(text.to_owned()))?;
        if algorithm != "sha256" {
            return Err(ParseDigestError::Algorithm(algorithm.to_owned()));
        }
        Self::from_hex(hex).map_err(|_| ParseDigestError::Form(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Makes a newtype over [`Digest`] that prints and parses as one.
macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                text.parse().map(Self)
            }
        }
    };
}

digest_newtype! {
    /// The sha256 of a layer's uncompressed tar: the name of a layer.
    DiffId
}

digest_newtype! {
    /// The name of a stack of layers, as the OCI image specification defines it.
    ChainId
}

impl ChainId {
    /// Returns the id of the stack `layers`, bottom first.
    ///
    /// OCI image-spec, "Layer ChainID": the id of one layer is its `DiffId`; that of more is the
    /// sha256 of `<id of all but the last> <last>`. The empty stack, which the specification does
    /// not name, has the sha256 of nothing.
    pub fn of(layers: &[DiffId]) -> Self {
        let Some((first, rest)) = layers.split_first() else { return Self(Digest::of(b"")) };
        rest.iter().fold(Self(first.0), |chain, layer| chain.with(*layer))
    }

    /// Returns the id of this stack with `layer` put on top.
    #[must_use]
    pub fn with(self, layer: DiffId) -> Self {
        Self(Digest::of(format!("{self} {layer}").as_bytes()))
    }
}

/// A running sha256.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of all bytes added.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// Most bytes in which [`mend_one_bit`] looks for a wrong bit: it takes a second or so.
pub const MEND_MAX_BYTES: usize = 24 * 1024;

/// Turns the one bit back without which bytes do not hash to what they should; tells whether there is
/// such a bit, or nothing is wrong. More than [`MEND_MAX_BYTES`] bytes are not looked through.
pub fn mend_one_bit(bytes: &mut [u8], expected: Digest) -> bool {
    if Digest::of(bytes) == expected {
        return true;
    }
    if bytes.len() > MEND_MAX_BYTES {
        return false;
    }
    // What is before the bit is hashed once for all bits behind it.
    let mut before = Hasher::default();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let turned = bytes[at] ^ 1 << bit;
            let mut hasher = before.clone();
            hasher.update(&[turned]);
            hasher.update(&bytes[at + 1..]);
            if hasher.finish() == expected {
                bytes[at] = turned;
                return true;
            }
        }
        before.update(&bytes[at..=at]);
    }
    false
}

/// Reads through to another reader, hashing and counting what passes.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    len_bytes: u64,
}

impl<R: io::Read> HashingReader<R> {
    /// Returns a reader that hashes what is read from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default(), len_bytes: 0 }
    }

    /// Returns how many bytes have passed.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Returns the digest of what has passed, and the reader.
    pub fn finish(self) -> (Digest, R) {
        (self.hasher.finish(), self.inner)
    }
}

impl<R: io::Read> io::Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.hasher.update(&buf[..len]);
        self.len_bytes += len as u64;
        Ok(len)
    }
}

/// Writes through to another writer, hashing and counting what passes.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    len_bytes: u64,
}

impl<W: io::Write> HashingWriter<W> {
    /// Returns a writer that hashes what is written to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::default(), len_bytes: 0 }
    }

    /// Returns how many bytes have passed.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Returns the digest of what has passed, and the writer.
    pub fn finish(self) -> (Digest, W) {
        (self.hasher.finish(), self.inner)
    }
}

impl<W: io::Write> io::Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(buf)?;
        self.hasher.update(&buf[..len]);
        self.len_bytes += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_prints_and_parses() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(digest));
        assert_eq!(digest.short(), "e3b0c44298fc");
    }

    #[test]
    fn one_wrong_bit_is_found_wherever_it_is_and_two_are_not() {
        let good: Vec<u8> = (0..200).collect();
        let expected = Digest::of(&good);
        for bit in (0..good.len() * 8).step_by(37) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(mend_one_bit(&mut bad, expected));
            assert_eq!(bad, good);
        }
        let mut bad = good.clone();
        (bad[0], bad[1]) = (1, 0);
        let before = bad.clone();
        assert!(!mend_one_bit(&mut bad, expected));
        assert_eq!(bad, before);
        let mut large = vec![0; MEND_MAX_BYTES + 1];
        assert!(!mend_one_bit(&mut large, expected));
    }

    #[test]
    fn every_digit_counts() {
        let digest =
            Digest::from_bytes(std::array::from_fn(|at| (at * 37 % 251).try_into().unwrap()));
        let hex = digest.hex();
        assert_eq!(Digest::from_hex(&hex), Ok(digest));
        for at in 0..hex.len() {
            for wrong in ["g", "A", "/", ":", "`", " ", "\0"] {
                let mut text = hex.clone();
                text.replace_range(at..=at, wrong);
                assert_eq!(Digest::from_hex(&text), Err(ParseDigestError::Form(text)));
            }
        }
        assert!(Digest::from_hex(&hex[1..]).is_err());
        assert!(Digest::from_hex(&format!("{hex}0")).is_err());
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        let hex = &EMPTY["sha256:".len()..];
        for text in ["", "sha256", "sha256:", "sha256:abc", hex, &EMPTY.to_uppercase()] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let other = format!("sha512:{hex}");
        let expected = ParseDigestError::Algorithm("sha512".into());
        assert_eq!(other.parse::<Digest>(), Err(expected));
        let not_hex = EMPTY.replace('e', "g");
        assert!(matches!(not_hex.parse::<Digest>(), Err(ParseDigestError::Form(_))));
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let layer = |byte| DiffId(Digest::of(&[byte]));
        let two = format!("{} {}", layer(1), layer(2));
        let two = ChainId(Digest::of(two.as_bytes()));
        assert_eq!(ChainId::of(&[]).to_string(), EMPTY);
        assert_eq!(ChainId::of(&[layer(1)]).0, layer(1).0);
        assert_eq!(ChainId::of(&[layer(1), layer(2)]), two);
        assert_eq!(ChainId::of(&[layer(1), layer(2), layer(3)]), two.with(layer(3)));
    }
}
