//! Compressing a layer, and undoing the compression of a layer or an archive.

use std::io::{self, BufRead, BufReader, Read, Write};

/// Largest window of a zstd stream, as the `zstd` program has it: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The level at which docker compresses layers.
const GZIP_LEVEL: u32 = 6;

/// Compresses what is written to it.
#[derive(Debug)]
pub struct Gzip<W: Write>(flate2::write::GzEncoder<W>);

impl<W: Write> Gzip<W> {
    /// Returns a compressor to `out`. Neither name nor time is written, so that the same bytes always
    /// come out the same.
    pub fn new(out: W) -> Self {
        Self(flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL)))
    }

    /// Ends the stream and returns where it was written.
    pub fn finish(self) -> io::Result<W> {
        self.0.finish()
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressed {
    /// Not at all.
    Not,
    /// gzip, in one member or several.
    Gzip,
    /// zstd, in one frame or several.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl Compressed {
    /// Returns how a file that begins with these bytes is compressed.
    pub fn of_first_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A zstd frame, or one that its readers skip (zstd:chunked begins with none, but may).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Not,
        }
    }

    /// Returns a reader of what `reader` gives compressed.
    pub fn decoder<'a>(
        self,
        reader: impl BufRead + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Not => Box::new(reader),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new(reader, true)),
        })
    }
}

/// Returns a reader of what `reader` gives, uncompressed if it is compressed in a way that is known.
pub fn decompress<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut reader = BufReader::with_capacity(128 * 1024, reader);
    // One read of a pipe may give fewer bytes than a magic number has.
    let mut first = Vec::with_capacity(8);
    (&mut reader).take(6).read_to_end(&mut first)?;
    Compressed::of_first_bytes(&first).decoder(io::Cursor::new(first).chain(reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"the same text in every form";

    fn gzip() -> Vec<u8> {
        let mut encoder = Gzip::new(Vec::new());
        encoder.write_all(TEXT).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_form_is_recognised_and_undone() {
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(TEXT).unwrap();
        let options = lzma_rust2::XzOptions::default();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        xz.write_all(TEXT).unwrap();
        for (form, bytes) in [
            (Compressed::Not, TEXT.to_vec()),
            (Compressed::Gzip, gzip()),
            (Compressed::Zstd, zstd::encode_all(TEXT, 1).unwrap()),
            (Compressed::Bzip2, bzip2.finish().unwrap()),
            (Compressed::Xz, xz.finish().unwrap()),
        ] {
            assert_eq!(Compressed::of_first_bytes(&bytes), form);
            let mut text = Vec::new();
            decompress(&bytes[..]).unwrap().read_to_end(&mut text).unwrap();
            assert_eq!(text, TEXT, "{form:?}");
        }
    }

    #[test]
    fn members_of_gzip_follow_each_other() {
        let twice = [gzip(), gzip()].concat();
        let mut text = Vec::new();
        decompress(&twice[..]).unwrap().read_to_end(&mut text).unwrap();
        assert_eq!(text, [TEXT, TEXT].concat());
    }

    #[test]
    fn what_is_shorter_than_a_magic_number_is_itself() {
        for bytes in [&b""[..], b"a", b"\x1f"] {
            let mut text = Vec::new();
            decompress(bytes).unwrap().read_to_end(&mut text).unwrap();
            assert_eq!(text, bytes);
        }
    }

    #[test]
    fn a_compressed_stream_that_is_cut_off_is_an_error() {
        let gzip = gzip();
        let mut text = Vec::new();
        assert!(decompress(&gzip[..gzip.len() - 4]).unwrap().read_to_end(&mut text).is_err());
    }
}
