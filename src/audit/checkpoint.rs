//! Checkpoints of the trail: C2SP tlog-checkpoint, a signed note (C2SP signed-note) that says how
//! many records there are and what the root of their tree is.
//!
//! Signature types: Ed25519 is 0x01, its key id over name, type and raw key. ECDSA P-256 is 0x02: the
//! signature in DER over the text's SHA-256, the key id from the SHA-256 of the SPKI.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::merkle::Hash;
use crate::{
    evidence::TreeHead,
    key::{PublicKey, Signature},
};

/// Longest note that is read: room for many signatures by others.
const MAX_NOTE: usize = 64 * 1024;

/// What a checkpoint states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log this is of.
    pub origin: String,
    /// How many records.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

/// Why a text is not a checkpoint to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("it has not the form of a checkpoint")]
    Malformed,
    #[error("none of its signatures is by the audit key")]
    UnknownKey,
    #[error("the signature of the audit key does not verify")]
    BadSignature,
}

/// A text to be signed as the head of a tree.
pub struct Text(String);

impl TreeHead for Text {
    fn text(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> Text {
        Text(format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root)))
    }

    /// The whole note, with a signature over [`Checkpoint::text`].
    #[must_use]
    pub fn note(&self, key: &PublicKey, signature: &Signature) -> Option<String> {
        let bytes = [&key_id(&self.origin, key)?[..], &signature_bytes(key, signature)?].concat();
        Some(format!("{}\n— {} {}\n", self.text().0, self.origin, STANDARD.encode(bytes)))
    }

    /// Reads a note and verifies it with whichever of the keys it names. Signatures by others are
    /// passed over.
    pub fn open(note: &str, keys: &[PublicKey]) -> Result<Self, Invalid> {
        if note.len() > MAX_NOTE {
            return Err(Invalid::Malformed);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(Invalid::Malformed)?;
        let checkpoint = Self::parse(text).ok_or(Invalid::Malformed)?;
        if !signatures.ends_with('\n') {
            return Err(Invalid::Malformed);
        }
        let mut found = Err(Invalid::UnknownKey);
        for line in signatures.lines() {
            let (name, bytes) = signature_line(line).ok_or(Invalid::Malformed)?;
            let key = keys
                .iter()
                .find(|key| name == checkpoint.origin && key_id(name, key).is_some_and(|id| bytes.starts_with(&id)));
            if let Some(key) = key {
                // A known key's signature that does not verify spoils the whole note.
                verify(key, &checkpoint.text(), &bytes[4..])?;
                found = Ok(());
            }
        }
        found.map(|()| checkpoint)
    }

    /// The size that a note of our own states. Nothing is verified.
    #[must_use]
    pub fn size_of(note: &str) -> Option<u64> {
        Some(Self::parse(note.split_once("\n\n")?.0)?.size)
    }

    /// The three lines of the text, without the last newline. No extension lines: nobody signs them here.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let checkpoint = Self {
            origin: origin.to_owned(),
            size: size.parse().ok()?,
            root: STANDARD.decode(root).ok()?.try_into().ok()?,
        };
        // Written again it must be the same: no leading zeros, no other alphabet, nothing after it.
        (is_name(origin) && checkpoint.text().0.strip_suffix('\n') == Some(text)).then_some(checkpoint)
    }
}

/// `— <name> <base64 of key id and signature>`
fn signature_line(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
    let bytes = STANDARD.decode(signature).ok()?;
    (is_name(name) && bytes.len() > 4).then_some((name, bytes))
}

/// Whether a log may be called so: no space, no plus, no control character.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// The key id of the audit key under this name; `None` for a key that signed notes do not know.
#[must_use]
pub fn key_id(name: &str, key: &PublicKey) -> Option<[u8; 4]> {
    let digest = match key {
        PublicKey::Ed25519(_) => {
            Sha256::new().chain_update(name).chain_update(b"\n\x01").chain_update(key.to_raw_bytes()).finalize()
        }
        PublicKey::P256(_) => Sha256::digest(key.to_spki_der()),
        PublicKey::Secp256k1(_) => return None,
    };
    digest[..4].try_into().ok()
}

/// The key as other tools are told it (`<name>+<key id>+<type and key>`).
#[must_use]
pub fn verifier_key(name: &str, key: &PublicKey) -> Option<String> {
    let encoded = match key {
        PublicKey::Ed25519(_) => [&[1][..], &key.to_raw_bytes()].concat(),
        PublicKey::P256(_) => [&[2][..], &key.to_spki_der()].concat(),
        PublicKey::Secp256k1(_) => return None,
    };
    Some(format!("{name}+{}+{}", hex::encode(key_id(name, key)?), STANDARD.encode(encoded)))
}

fn signature_bytes(key: &PublicKey, signature: &Signature) -> Option<Vec<u8>> {
    match key {
        PublicKey::Ed25519(_) => Some(signature.as_bytes().to_vec()),
        PublicKey::P256(_) => {
            let parsed = p256::ecdsa::Signature::from_slice(signature.as_bytes()).ok()?;
            Some(parsed.to_der().as_bytes().to_vec())
        }
        PublicKey::Secp256k1(_) => None,
    }
}

fn verify(key: &PublicKey, text: &Text, bytes: &[u8]) -> Result<(), Invalid> {
    let signature = match key {
        PublicKey::P256(_) => {
            let parsed = p256::ecdsa::Signature::from_der(bytes).map_err(|_| Invalid::BadSignature)?;
            Signature::from_slice(&parsed.to_bytes())
        }
        PublicKey::Ed25519(_) | PublicKey::Secp256k1(_) => Signature::from_slice(bytes),
    };
    let signature = signature.ok_or(Invalid::BadSignature)?;
    key.verify(text.text(), &signature).map_err(|_| Invalid::BadSignature)
}

#[cfg(test)]
pub(crate) mod tests {
    use ed25519_dalek::Signer as _;
    use p256::ecdsa::signature::hazmat::PrehashSigner;

    use super::*;

    pub(crate) fn key(seed: u8) -> (ed25519_dalek::SigningKey, PublicKey) {
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        let public = PublicKey::Ed25519(key.verifying_key());
        (key, public)
    }

    pub(crate) fn note(checkpoint: &Checkpoint, seed: u8) -> String {
        let (key, public) = key(seed);
        let signature = Signature::from_slice(&key.sign(checkpoint.text().text()).to_bytes()).unwrap();
        checkpoint.note(&public, &signature).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "example.com/behind-the-sofa".into(), size: 20_852_163, root: [7; 32] }
    }

    #[test]
    fn the_published_example_is_read() {
        // The example of C2SP tlog-checkpoint.
        let note = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
        // Its key is not ours to know: the form is accepted, and the signature passed over.
        assert_eq!(Checkpoint::open(note, &[key(1).1]), Err(Invalid::UnknownKey));
    }

    #[test]
    fn a_note_by_either_algorithm_opens_with_its_key_alone() {
        let note = note(&checkpoint(), 1);
        assert_eq!(Checkpoint::open(&note, &[key(2).1, key(1).1]), Ok(checkpoint()));
        assert_eq!(Checkpoint::open(&note, &[key(2).1]), Err(Invalid::UnknownKey));

        let secret = p256::ecdsa::SigningKey::from_slice(&[3; 32]).unwrap();
        let public = PublicKey::P256(*secret.verifying_key());
        let raw: p256::ecdsa::Signature = secret.sign_prehash(&Sha256::digest(checkpoint().text().text())).unwrap();
        let note = checkpoint().note(&public, &public.normalize(&raw.to_bytes()).unwrap()).unwrap();
        assert_eq!(Checkpoint::open(&note, &[public]), Ok(checkpoint()));
    }

    #[test]
    fn any_changed_bit_of_a_note_is_noticed() {
        let note = note(&checkpoint(), 1).into_bytes();
        for bit in 0..note.len() * 8 {
            let mut changed = note.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let opened = String::from_utf8(changed).map(|note| Checkpoint::open(&note, &[key(1).1]));
            assert!(!matches!(opened, Ok(Ok(_))), "bit {bit}");
        }
    }

    #[test]
    fn signatures_of_others_beside_ours_do_no_harm() {
        let both = format!("{}— witness.example/w1 {}\n", note(&checkpoint(), 1), STANDARD.encode([9; 76]));
        assert_eq!(Checkpoint::open(&both, &[key(1).1]), Ok(checkpoint()));
    }

    #[test]
    fn what_is_not_a_checkpoint_is_refused() {
        let good = note(&checkpoint(), 1);
        for (from, to) in [
            ("20852163", "020852163"),
            ("20852163", "-1"),
            ("20852163", "20852163\nextension"),
            ("\n\n", "\n"),
            ("— ", "- "),
            ("example.com/behind-the-sofa\n", "two words\n"),
        ] {
            assert_eq!(Checkpoint::open(&good.replacen(from, to, 1), &[key(1).1]), Err(Invalid::Malformed), "{to}");
        }
        assert_eq!(Checkpoint::open("", &[]), Err(Invalid::Malformed));
        assert_eq!(Checkpoint::open(good.trim_end(), &[key(1).1]), Err(Invalid::Malformed));
    }
}
