//! Compressing a layer, and undoing the compression of a layer or an archive.

use std::io::{self, BufRead, BufReader, Read, Write};

use liblzma::stream::{CONCATENATED, Stream};

use crate::layer::error::Error;

/// Largest window of a zstd stream, as the `zstd` program has it without `--long`: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Memory for a stream of xz: a dictionary of 128 MiB, twice that of `xz -9`, and what is needed
/// besides.
const XZ_MEMORY_MAX: u64 = (128 + 16) << 20;

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

    /// Returns a reader of what `reader` gives compressed. It takes little more than 128 MiB of memory,
    /// whatever the stream asks for.
    ///
    /// # Errors
    /// Reading gives one with [`Error::Window`] inside when the stream asks for more.
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
                Box::new(Bounded { decoder, form: "zstd", is_window: is_zstd_window })
            }
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
            Self::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, CONCATENATED)?;
                let decoder = liblzma::bufread::XzDecoder::new_stream(reader, stream);
                Box::new(Bounded { decoder, form: "xz", is_window: is_xz_window })
            }
        })
    }
}

/// A decoder that refuses large windows, and says so in words of its own.
struct Bounded<R> {
    decoder: R,
    form: &'static str,
    is_window: fn(&io::Error) -> bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { decoder, form, is_window } = self;
        decoder.read(buffer).map_err(|error| match is_window(&error) {
            true => io::Error::other(Error::Window { form }),
            false => error,
        })
    }
}

/// Tells whether zstd has refused a window. It has but a text for it.
fn is_zstd_window(error: &io::Error) -> bool {
    error.to_string().contains("requires too much memory")
}

fn is_xz_window(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<liblzma::stream::Error>());
    matches!(inner, Some(liblzma::stream::Error::MemLimit))
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

    fn xz(level: u32, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn undone(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        decompress(bytes)?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn every_form_is_recognised_and_undone() {
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(TEXT).unwrap();
        for (form, bytes) in [
            (Compressed::Not, TEXT.to_vec()),
            (Compressed::Gzip, gzip()),
            (Compressed::Zstd, zstd::encode_all(TEXT, 1).unwrap()),
            (Compressed::Bzip2, bzip2.finish().unwrap()),
            (Compressed::Xz, xz(6, TEXT)),
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
    fn streams_of_xz_follow_each_other_with_padding_between_them() {
        let streams = [&xz(9, TEXT)[..], &[0; 8], &xz(0, b""), &xz(6, TEXT)].concat();
        assert_eq!(undone(&streams).unwrap(), [TEXT, TEXT].concat());
        // A decoder that calls itself for each of these has no stack any more.
        let streams = [xz(0, b"").repeat(100_000), xz(6, TEXT)].concat();
        assert_eq!(undone(&streams).unwrap(), TEXT);
    }

    /// Returns an xz stream whose one block asks for a dictionary: 2^27 bytes for 32, 1.5 times that
    /// for 33.
    fn xz_with_dictionary(size: u8) -> Vec<u8> {
        let mut bytes = xz(0, TEXT);
        // Behind the header of the stream: the length of the block's, its flags, then filter 0x21 with
        // one byte, and at the end of the twelve bytes their sum.
        assert_eq!(bytes[12..16], [2, 0, 0x21, 1]);
        bytes[16] = size;
        let mut sum = flate2::Crc::new();
        sum.update(&bytes[12..20]);
        bytes[20..24].copy_from_slice(&sum.sum().to_le_bytes());
        bytes
    }

    #[test]
    fn a_window_of_more_than_128_mib_is_refused_and_said() {
        let zstd = |log| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(TEXT).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(undone(&zstd(27)).unwrap(), TEXT);
        assert_eq!(undone(&xz(9, TEXT)).unwrap(), TEXT);
        assert_eq!(undone(&xz_with_dictionary(30)).unwrap(), TEXT);
        for (form, bytes) in [("zstd", zstd(28)), ("xz", xz_with_dictionary(33))] {
            let error = undone(&bytes).unwrap_err().downcast::<Error>().unwrap().to_string();
            assert!(error.contains(&format!("compressed with {form} ")), "{error}");
        }
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
