//! Bodies that a producer compressed, as they were before.

use std::borrow::Cow;
use std::io::{self, Read};

use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::origin::BodyEncoding;

/// Why a body cannot be had as it was before it was compressed.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    #[error("the body is said to be {name}, and is not: {source}", name = .encoding.name())]
    Damaged { encoding: BodyEncoding, source: io::Error },
    #[error("the body has more than {bytes_max} bytes once its {name} is taken off", name = .encoding.name())]
    TooLarge { encoding: BodyEncoding, bytes_max: usize },
}

/// A body as its producer had it: borrowed when it was not compressed. Never makes more than `bytes_max` bytes, whatever the
/// body says of its length.
pub fn inflate(body: &[u8], encoding: BodyEncoding, bytes_max: usize) -> Result<Cow<'_, [u8]>, InflateError> {
    let read = |decoder: &mut dyn Read| {
        let mut plain = Vec::new();
        // One byte more tells that there is more.
        let found = decoder.take(bytes_max as u64 + 1).read_to_end(&mut plain);
        match found {
            Err(source) => Err(InflateError::Damaged { encoding, source }),
            Ok(_) if plain.len() > bytes_max => Err(InflateError::TooLarge { encoding, bytes_max }),
            Ok(_) => Ok(Cow::Owned(plain)),
        }
    };
    match encoding {
        BodyEncoding::Plain => Ok(Cow::Borrowed(body)),
        BodyEncoding::Zlib => read(&mut flate2::read::ZlibDecoder::new(body)),
        BodyEncoding::Lz4 => read(&mut lz4_flex::frame::FrameDecoder::new(body)),
        BodyEncoding::Zstd => {
            let damaged = |error: FrameDecoderError| InflateError::Damaged {
                encoding,
                source: io::Error::other(error.to_string()),
            };
            match inflate_zstd(body, bytes_max).map_err(damaged)? {
                Some(plain) if plain.len() <= bytes_max => Ok(Cow::Owned(plain)),
                _ => Err(InflateError::TooLarge { encoding, bytes_max }),
            }
        }
    }
}

/// One frame of zstd; `None` once it has more than `bytes_max` bytes. Its blocks are decoded one by one, and counted: a reader
/// would first fill the window, which is as large as the frame says, up to 100 MiB.
fn inflate_zstd(mut body: &[u8], bytes_max: usize) -> Result<Option<Vec<u8>>, FrameDecoderError> {
    let mut decoder = FrameDecoder::new();
    decoder.init(&mut body)?;
    let is_whole = decoder.decode_blocks(&mut body, BlockDecodingStrategy::UptoBytes(bytes_max + 1))?;
    Ok(if is_whole { Some(decoder.collect().unwrap_or_default()) } else { None })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn compressed(encoding: BodyEncoding, plain: &[u8]) -> Vec<u8> {
        match encoding {
            BodyEncoding::Plain => plain.to_vec(),
            BodyEncoding::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(plain).expect("writing into memory");
                encoder.finish().expect("writing into memory")
            }
            BodyEncoding::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(plain).expect("writing into memory");
                encoder.finish().expect("writing into memory")
            }
            BodyEncoding::Zstd => {
                ruzstd::encoding::compress_to_vec(plain, ruzstd::encoding::CompressionLevel::Fastest)
            }
        }
    }

    const ENCODINGS: [BodyEncoding; 4] =
        [BodyEncoding::Plain, BodyEncoding::Zlib, BodyEncoding::Lz4, BodyEncoding::Zstd];

    #[test]
    fn a_body_is_what_it_was_before_it_was_compressed() {
        for encoding in ENCODINGS {
            for plain in [&b""[..], b"three apples", &[7; 100_000]] {
                let body = compressed(encoding, plain);
                let found = inflate(&body, encoding, 100_000).expect("it is whole");
                assert_eq!(&*found, plain, "{}", encoding.name());
            }
        }
    }

    #[test]
    fn a_small_body_that_becomes_a_large_one_is_not_made() {
        for encoding in &ENCODINGS[1..] {
            let body = compressed(*encoding, &vec![0; 8 * 1024 * 1024]);
            assert!(body.len() < 64 * 1024, "{} bytes of {}", body.len(), encoding.name());
            let refused = inflate(&body, *encoding, 4 * 1024 * 1024);
            assert!(matches!(refused, Err(InflateError::TooLarge { .. })), "{}", encoding.name());
        }
    }

    /// A frame may ask its reader to keep 64 MiB: it is not decoded beyond what a body may have, which is seen by its end,
    /// that is missing.
    #[test]
    fn a_large_window_is_not_filled() {
        let mut body = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 16 << 3];
        for _ in 0..24 {
            // A block of 128 KiB that repeats one byte: three bytes of header, and the byte.
            let header = ((128 * 1024) << 3) | (1 << 1);
            body.extend_from_slice(&u32::to_le_bytes(header)[..3]);
            body.push(7);
        }
        let refused = inflate(&body, BodyEncoding::Zstd, 1024 * 1024);
        assert!(matches!(refused, Err(InflateError::TooLarge { .. })), "{refused:?}");
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_refused() {
        for encoding in &ENCODINGS[1..] {
            let body = compressed(*encoding, b"not very long, but long enough to be cut in the middle of it");
            for broken in [&body[..body.len() / 2], b"something else", b"\x78"] {
                let refused = inflate(broken, *encoding, 1000);
                assert!(matches!(refused, Err(InflateError::Damaged { .. })), "{}", encoding.name());
            }
        }
    }
}
