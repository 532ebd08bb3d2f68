//! `key_id`: `<signer_id>:<sequence>`.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The name of a signer: 1 to 63 lower-case letters, digits, dots and hyphens, beginning with a
/// letter or digit. It is part of token labels, Redis keys and DIDs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignerId(Arc<str>);

/// Why a text is not a [`SignerId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 63 lower-case letters, digits, dots or hyphens, beginning with a letter or digit")]
pub struct InvalidSignerId;

impl SignerId {
    /// Reads a signer's name.
    pub fn parse(text: &str) -> Result<Self, InvalidSignerId> {
        let ok = (1..=63).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'));
        if ok { Ok(Self(text.into())) } else { Err(InvalidSignerId) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SignerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SignerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// The name of one key of one signer. Sequence numbers begin at 1 and are never used again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId {
    pub signer: SignerId,
    pub sequence: u32,
}

impl KeyId {
    /// Reads `<signer_id>:<sequence>`; `None` when the text is not of that form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (signer, sequence) = text.rsplit_once(':')?;
        let canonical = !sequence.starts_with('0') && sequence.bytes().all(|b| b.is_ascii_digit());
        Some(Self { signer: SignerId::parse(signer).ok()?, sequence: canonical.then(|| sequence.parse().ok())?? })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.signer, self.sequence)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a key id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_has_one_spelling() {
        assert_eq!(KeyId::parse("veid-signer-1:3").unwrap().to_string(), "veid-signer-1:3");
        for text in ["", ":", "a:", ":1", "a:0", "a:01", "a:+1", "a:-1", "a:4294967296", "A:1", "a b:1", "-a:1", "a:1:"]
        {
            assert_eq!(KeyId::parse(text), None, "{text}");
        }
    }
}
