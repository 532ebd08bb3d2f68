//! The nonce itself: 16 to 64 bytes, hex on the wire, never all `00` or all `FF`.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Lengths accepted from callers, in bytes. The signer itself issues [`NonceValue::ISSUED_LENGTH`].
pub const ACCEPTED_LENGTHS: RangeInclusive<usize> = 16..=64;

/// A well-formed nonce. That it was issued, and is unspent, is the nonce store's to say.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NonceValue(Box<[u8]>);

/// How every nonce that this signer issues ends.
const ISSUED_END: [u8; 4] = *b"veid";

/// Why a text is not a [`NonceValue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNonce {
    #[error("expected 32 to 128 lower-case hex digits (16 to 64 bytes)")]
    Format,
    #[error("a nonce of one repeated byte 00 or ff is weak and never accepted")]
    Weak,
}

impl NonceValue {
    /// Length of nonces this signer issues, in bytes.
    pub const ISSUED_LENGTH: usize = 32;

    /// How many of the bytes of an issued nonce are random.
    pub const RANDOM_LENGTH: usize = Self::ISSUED_LENGTH - ISSUED_END.len();

    /// A nonce to be issued. It is marked, so that one that was issued and forgotten is never taken
    /// for one that a client made itself.
    #[must_use]
    pub fn issue(random: [u8; Self::RANDOM_LENGTH]) -> Self {
        Self([&random[..], &ISSUED_END].concat().into())
    }

    /// Whether it bears the mark of issued nonces.
    #[must_use]
    pub fn was_issued(&self) -> bool {
        self.0.len() == Self::ISSUED_LENGTH && self.0.ends_with(&ISSUED_END)
    }

    /// Checks length and strength of raw bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidNonce> {
        if !ACCEPTED_LENGTHS.contains(&bytes.len()) {
            return Err(InvalidNonce::Format);
        }
        if bytes.iter().all(|b| *b == 0x00) || bytes.iter().all(|b| *b == 0xff) {
            return Err(InvalidNonce::Weak);
        }
        Ok(Self(bytes.into()))
    }

    /// Reads lower-case hex. Upper case is refused: the text itself is part of what is signed, and
    /// one nonce must have one spelling.
    pub fn parse(text: &str) -> Result<Self, InvalidNonce> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidNonce::Format);
        }
        Self::from_bytes(&hex::decode(text).map_err(|_| InvalidNonce::Format)?)
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Lower-case hex, as on the wire.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(&self.0)
    }
}

impl fmt::Debug for NonceValue {
    /// Nonces stay out of logs: whoever reads one there could spend it first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NonceValue({} bytes)", self.0.len())
    }
}

impl Serialize for NonceValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for NonceValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;
        impl de::Visitor<'_> for Hex {
            type Value = NonceValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a nonce in hex")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<NonceValue, E> {
                NonceValue::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn weak_short_long_and_upper_case_nonces_are_refused() {
        assert_eq!(NonceValue::parse(&"00".repeat(32)), Err(InvalidNonce::Weak));
        assert_eq!(NonceValue::parse(&"ff".repeat(16)), Err(InvalidNonce::Weak));
        assert_eq!(NonceValue::parse(&"ab".repeat(15)), Err(InvalidNonce::Format));
        assert_eq!(NonceValue::parse(&"ab".repeat(65)), Err(InvalidNonce::Format));
        assert_eq!(NonceValue::parse(&"AB".repeat(32)), Err(InvalidNonce::Format));
        assert_eq!(NonceValue::parse("xyz"), Err(InvalidNonce::Format));
        assert!(NonceValue::parse(&"ab".repeat(16)).is_ok());
        assert!(NonceValue::parse(&"ab".repeat(64)).is_ok());
    }

    #[test]
    fn issued_nonces_are_known_by_their_end() {
        let issued = NonceValue::issue([7; NonceValue::RANDOM_LENGTH]);
        assert!(issued.was_issued() && issued.as_bytes().len() == 32);
        assert_eq!(NonceValue::parse(&issued.to_hex()), Ok(issued.clone()));
        assert!(!NonceValue::parse(&"ab".repeat(32)).unwrap().was_issued());
        assert!(!NonceValue::from_bytes(&issued.as_bytes()[1..]).unwrap().was_issued());
    }

    #[test]
    fn a_nonce_does_not_show_in_debug_output() {
        let nonce = NonceValue::parse(&"ab".repeat(32)).unwrap();
        assert!(!format!("{nonce:?}").contains("abab"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,140}") {
            if let Ok(nonce) = NonceValue::parse(&text) {
                prop_assert_eq!(nonce.to_hex(), text);
            }
        }
    }
}
