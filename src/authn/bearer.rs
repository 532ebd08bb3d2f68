//! Bearer keys: `vsk_<id>_<secret>`, 64 and 256 random bits in hex.
//!
//! The prefix is for programs that look for leaked secrets. What is kept is HMAC-SHA-256 of the
//! secret under a salt of the key's own. A slow hash (Argon2) protects secrets that people think up;
//! nobody can try 2²⁵⁶ keys at any speed, and at a slow hash's cost every request with a made-up key
//! would be an attack on the processor.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// How every key begins.
pub(super) const PREFIX: &str = "vsk_";

const ID_BYTES: usize = 8;
pub(super) const SECRET_BYTES: usize = 32;

/// A key as its holder has it.
pub(super) struct BearerKey {
    pub(super) id: String,
    secret: Zeroizing<Vec<u8>>,
}

impl BearerKey {
    /// `None` for what does not look like a key at all.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let lower = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if id.len() != 2 * ID_BYTES || secret.len() != 2 * SECRET_BYTES || !lower(id) || !lower(secret) {
            return None;
        }
        Some(Self { id: id.to_owned(), secret: Zeroizing::new(hex::decode(secret).ok()?) })
    }

    /// A new one.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut id = [0; ID_BYTES];
        let mut secret = Zeroizing::new(vec![0; SECRET_BYTES]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self { id: hex::encode(id), secret })
    }

    /// The text that its holder is given, once.
    pub(super) fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}_{}", self.id, Zeroizing::new(hex::encode(&*self.secret)).as_str()))
    }

    /// What is kept of it.
    pub(super) fn hash(&self, salt: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("HMAC takes keys of any length");
        mac.update(&self.secret);
        mac.finalize().into_bytes().into()
    }

    /// Whether this is the key of that hash. Takes the same time wherever they differ.
    pub(super) fn matches(&self, salt: &[u8], hash: &[u8]) -> bool {
        self.hash(salt).ct_eq(hash).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_matches_its_own_hash_only() {
        let (one, other) = (BearerKey::random().unwrap(), BearerKey::random().unwrap());
        let again = BearerKey::parse(&one.reveal()).unwrap();
        let hash = one.hash(b"salt");
        assert!(again.matches(b"salt", &hash));
        assert!(
            !other.matches(b"salt", &hash) && !again.matches(b"tlas", &hash) && !again.matches(b"salt", &hash[..31])
        );
    }

    #[test]
    fn what_is_not_a_key_is_not_parsed() {
        let good = BearerKey::random().unwrap().reveal();
        assert_eq!(good.len(), 4 + 16 + 1 + 64);
        for bad in [
            "",
            "vsk_",
            &good[1..],
            &good[..good.len() - 1],
            &good.to_uppercase(),
            &format!("{}0", *good),
            &good.replace("vsk_", "vsk_ "),
            &format!("{} ", *good),
        ] {
            assert!(BearerKey::parse(bad).is_none(), "{bad}");
        }
    }
}
