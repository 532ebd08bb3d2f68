//! Ledger records: what happened to keys, one DER value each, kept on the token.
//!
//! ```asn1
//! Record ::= SEQUENCE {
//!   version   INTEGER (1),
//!   sequence  INTEGER,            -- 1, 2, 3 ... within one signer's ledger
//!   fence     INTEGER,            -- of the fleet lock under which it was written
//!   time      GeneralizedTime,
//!   signer    UTF8String,
//!   actor     UTF8String,
//!   previous  OCTET STRING,       -- SHA-256 of the record before, 32 zero bytes for the first
//!   event     CHOICE {
//!     keyGenerated       [0] EXPLICIT KeyGenerated,
//!     keyActivated       [1] EXPLICIT KeyActivated,
//!     rotationCompleted  [2] EXPLICIT RotationCompleted,
//!     rotationCancelled  [3] EXPLICIT RotationCancelled,
//!     keyDestroyed       [4] EXPLICIT KeyDestroyed } }
//! ```
//!
//! `openssl asn1parse -inform DER` reads every field. Records are only ever added. Revocations are
//! no part of this chain ([`super::revocation`]): they must not wait for, or lose to, anything.

use der::{
    Choice, Decode, Encode, Sequence,
    asn1::{GeneralizedTime, ObjectIdentifier, OctetString},
};
use sha2::{Digest, Sha256};

use crate::timestamp::Timestamp;

/// The record format this program writes, and the only one it reads.
pub const VERSION: u8 = 1;

/// `previous` of the first record.
pub const GENESIS: [u8; 32] = [0; 32];

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Record {
    pub version: u8,
    pub sequence: u64,
    pub fence: u64,
    pub time: GeneralizedTime,
    pub signer: String,
    pub actor: String,
    pub previous: OctetString,
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
pub enum Event {
    #[asn1(context_specific = "0", constructed = "true", tag_mode = "EXPLICIT")]
    KeyGenerated(KeyGenerated),
    #[asn1(context_specific = "1", constructed = "true", tag_mode = "EXPLICIT")]
    KeyActivated(KeyActivated),
    #[asn1(context_specific = "2", constructed = "true", tag_mode = "EXPLICIT")]
    RotationCompleted(RotationCompleted),
    #[asn1(context_specific = "3", constructed = "true", tag_mode = "EXPLICIT")]
    RotationCancelled(RotationCancelled),
    #[asn1(context_specific = "4", constructed = "true", tag_mode = "EXPLICIT")]
    KeyDestroyed(KeyDestroyed),
}

/// A key pair was generated inside the token.
///
/// ```asn1
/// KeyGenerated ::= SEQUENCE {
///   key           INTEGER,                 -- the sequence of the key id
///   objectId      OCTET STRING,            -- CKA_ID
///   label         UTF8String,              -- CKA_LABEL
///   curve         OBJECT IDENTIFIER,
///   publicKey     OCTET STRING,            -- SubjectPublicKeyInfo, kept because some tokens can lose it
///   notBefore     GeneralizedTime,
///   notAfter      GeneralizedTime,
///   tokenSerial   UTF8String,
///   omitted       SEQUENCE OF UTF8String,  -- parts of the strict template this module refuses
///   ownLine       BOOLEAN DEFAULT FALSE }  -- one of the keys that this token has for itself
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct KeyGenerated {
    pub key: u32,
    pub object_id: OctetString,
    pub label: String,
    pub curve: ObjectIdentifier,
    pub public_key: OctetString,
    pub not_before: GeneralizedTime,
    pub not_after: GeneralizedTime,
    pub token_serial: String,
    pub omitted: Vec<String>,
    #[asn1(default = "bool::default")]
    pub own_line: bool,
}

/// A pending key became the active one: the commit point of every rotation. The key that was
/// active until now is `rotating` until `overlapUntil`, and retired from then on.
///
/// ```asn1
/// KeyActivated ::= SEQUENCE {
///   key           INTEGER,
///   overlapUntil  GeneralizedTime,   -- the record's own time when there is no overlap
///   emergency     BOOLEAN,           -- ends every rotation in progress
///   reason        UTF8String,
///   initiatedBy   UTF8String,
///   notes         UTF8String }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct KeyActivated {
    pub key: u32,
    pub overlap_until: GeneralizedTime,
    pub emergency: bool,
    pub reason: String,
    pub initiated_by: String,
    pub notes: String,
}

/// The overlap of the rotation to `key` was ended: by its deadline, or before it by force.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct RotationCompleted {
    pub key: u32,
    pub forced: bool,
}

/// The rotation to `key` was taken back: the key before it is active again, `key` is retired.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct RotationCancelled {
    pub key: u32,
}

/// The private key object of `key` was destroyed on the token.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct KeyDestroyed {
    pub key: u32,
}

impl Record {
    /// The DER encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_der().expect("records are far below DER's length limits")
    }

    /// Reads one record; `None` when the bytes are not exactly one record of this version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_der(bytes).ok().filter(|record| record.version == VERSION)
    }

    /// The token label of this record: sorts by time, says what is inside.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} ledger {:06} {}", self.signer, self.sequence, self.event.name())
    }
}

impl Event {
    /// The event's name in labels and messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::KeyGenerated(_) => "key-generated",
            Self::KeyActivated(_) => "key-activated",
            Self::RotationCompleted(_) => "rotation-completed",
            Self::RotationCancelled(_) => "rotation-cancelled",
            Self::KeyDestroyed(_) => "key-destroyed",
        }
    }
}

/// SHA-256 of an encoded record: the link to the next one.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// GeneralizedTime of a timestamp, in whole seconds.
#[must_use]
pub fn to_generalized_time(time: Timestamp) -> GeneralizedTime {
    let seconds = u64::try_from(time.unix_seconds()).unwrap_or(0);
    GeneralizedTime::from_unix_duration(std::time::Duration::from_secs(seconds))
        .expect("timestamps end with the year 9999, as GeneralizedTime does")
}

/// Timestamp of a GeneralizedTime.
#[must_use]
pub fn from_generalized_time(time: &GeneralizedTime) -> Timestamp {
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).expect("the year 9999 fits");
    Timestamp::from_unix_seconds(seconds).expect("GeneralizedTime ends with the year 9999")
}
