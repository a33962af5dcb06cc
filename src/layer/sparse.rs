//! The map of a sparse file: which of its bytes an archive stores.

/// A piece of a file that is stored; between the pieces are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// A text that is no number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotANumber;

/// Reads decimal digits and nothing else.
pub(crate) fn read_digits(text: &[u8]) -> Result<u64, NotANumber> {
    if text.is_empty() {
        return Err(NotANumber);
    }
    text.iter()
        .try_fold(0_u64, |number, digit| match digit {
            b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
            _ => None,
        })
        .ok_or(NotANumber)
}

/// Reads offsets and lengths in turn, with commas between them; nothing is no piece.
pub(crate) fn parse_map(text: &[u8]) -> Result<Vec<Segment>, NotANumber> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let numbers: Vec<u64> =
        text.split(|byte| *byte == b',').map(read_digits).collect::<Result<_, _>>()?;
    let pairs = numbers.chunks(2).map(|pair| match pair {
        [offset, len] => Ok(Segment { offset: *offset, len: *len }),
        _ => Err(NotANumber),
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_pairs_of_numbers() {
        let piece = |offset, len| Segment { offset, len };
        for (text, map) in [
            ("", Ok(vec![])),
            ("0,512", Ok(vec![piece(0, 512)])),
            ("1,2,3,4", Ok(vec![piece(1, 2), piece(3, 4)])),
            ("1", Err(NotANumber)),
            ("1,", Err(NotANumber)),
            ("1,-2", Err(NotANumber)),
            ("99999999999999999999,1", Err(NotANumber)),
        ] {
            assert_eq!(parse_map(text.as_bytes()), map, "{text}");
        }
    }
}
