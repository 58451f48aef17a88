//! Names of objects.

use std::fmt;
use std::ops::Deref;

/// An object name. Its digits are packed: a hook keeps two of them for each ref of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Oid {
    /// 40 digits.
    Sha1([u8; 20]),
    /// 64 digits.
    Sha256([u8; 32]),
}

/// The lower-case hex digits of an object name.
pub struct Hex {
    len: usize,
    digits: [u8; 64],
}

impl Deref for Hex {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.digits[..self.len]).expect("hex digits are ASCII")
    }
}

impl Oid {
    /// Takes 40 or 64 lower-case hex digits; anything else is `None`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Oid> {
        match text.len() {
            40 => packed(text).map(Oid::Sha1),
            64 => packed(text).map(Oid::Sha256),
            _ => None,
        }
    }

    /// Takes the 20 or 32 bytes of a name.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Oid> {
        match bytes.len() {
            20 => bytes.try_into().ok().map(Oid::Sha1),
            _ => bytes.try_into().ok().map(Oid::Sha256),
        }
    }

    /// The digits, two in each byte.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Oid::Sha1(bytes) => bytes,
            Oid::Sha256(bytes) => bytes,
        }
    }

    /// The hex digits.
    #[must_use]
    pub fn hex(&self) -> Hex {
        let bytes = self.as_bytes();
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Hex { len: 2 * bytes.len(), digits }
    }

    /// All zeros: git's way to write "none".
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.as_bytes().iter().all(|b| *b == 0)
    }

    /// The null object name of the same hash function.
    #[must_use]
    pub fn null_like(&self) -> String {
        "0".repeat(2 * self.as_bytes().len())
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn packed<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were_and_nothing_else_is_one() {
        let digits = "0123456789abcdef".repeat(4);
        for name in [&digits[..40], &digits, &"0".repeat(40), &"f".repeat(64)] {
            let oid = Oid::parse(name.as_bytes()).expect("it is a name");
            assert_eq!(&*oid.hex(), name);
            assert_eq!(oid.is_null(), name.starts_with("00"));
            assert_eq!(oid.null_like().len(), name.len());
        }
        let (upper, other) = ("A".repeat(40), "g".repeat(64));
        for bad in ["", "abc", &digits[..39], &digits[..41], &upper, &other] {
            assert_eq!(Oid::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
