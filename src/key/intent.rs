//! The intent to generate a key, on the token before the key is.
//!
//! It tells a crash's leftovers (objects that an intent names and no record does: safe to destroy)
//! from keys whose records are not visible or were lost (no intent: never touched).

use der::{
    Decode, Encode, Sequence,
    asn1::{GeneralizedTime, OctetString},
};

use crate::key::{Line, record::VERSION};

/// A key pair with this CKA_ID is about to be generated.
///
/// ```asn1
/// GenerationIntent ::= SEQUENCE {
///   version   INTEGER (1),
///   signer    UTF8String,
///   objectId  OCTET STRING,
///   time      GeneralizedTime,
///   actor     UTF8String,
///   token     UTF8String OPTIONAL } -- the serial of a token that has keys of its own
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct GenerationIntent {
    pub version: u8,
    pub signer: String,
    pub object_id: OctetString,
    pub time: GeneralizedTime,
    pub actor: String,
    #[asn1(optional = "true")]
    pub token: Option<String>,
}

/// What labels of intents have after the signer's name.
const INFIX: &str = " intent ";

impl GenerationIntent {
    /// An intent of this signer, to generate a key of this line.
    #[must_use]
    pub fn new(signer: &str, line: &Line, object_id: OctetString, time: GeneralizedTime, actor: &str) -> Self {
        let token = line.serial().map(ToOwned::to_owned);
        Self { version: VERSION, signer: signer.to_owned(), object_id, time, actor: actor.to_owned(), token }
    }

    /// The line of the key: it says on which token leftovers are.
    #[must_use]
    pub fn line(&self) -> Line {
        self.token.clone().map_or(Line::Signer, Line::Token)
    }

    /// The DER encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_der().expect("intents are far below DER's length limits")
    }

    /// Reads one intent.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_der(bytes).ok().filter(|intent| intent.version == VERSION)
    }

    /// The token label.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}{INFIX}{}", self.signer, hex::encode(self.object_id.as_bytes()))
    }

    /// True for labels that [`GenerationIntent::label`] makes.
    #[must_use]
    pub fn is_label(label: &str) -> bool {
        label.contains(INFIX)
    }
}
