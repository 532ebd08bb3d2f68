//! What can be asked of a token, and what it answers, as values: they are the same whether the module
//! is in this process or in another.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    AuditKey, CallError, Error, GenerateRequest, GeneratedKey, KeyAttributes, KeyObject, KeyRef,
    certificate::CertificateParts,
};
use crate::key::{Algorithm, PublicKey, StoredRecord};

/// One call of [`super::Token`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    Sign {
        object_id: Vec<u8>,
        algorithm: Algorithm,
        input: Vec<u8>,
    },
    /// The same beside the signing lane: a checkpoint keeps no request waiting.
    SignTreeHead {
        object_id: Vec<u8>,
        algorithm: Algorithm,
        input: Vec<u8>,
    },
    Generate(GenerateRequest),
    KeyAttributes {
        object_id: Vec<u8>,
    },
    /// A PKCS#10 certificate request.
    Pkcs10 {
        key: KeyRef,
        common_name: String,
    },
    StoreChain {
        object_id: Vec<u8>,
        label: String,
        at: i64,
        chain: Vec<CertificateParts>,
    },
    Certificates {
        object_id: Vec<u8>,
    },
    KeyObjects {
        prefix: String,
    },
    /// The public half of a key that is there with both halves, under its id and its label.
    HeldKey {
        object_id: Vec<u8>,
        label: String,
        algorithm: Algorithm,
    },
    DestroyPrivateKey {
        object_id: Vec<u8>,
    },
    DestroyLeftovers {
        object_id: Vec<u8>,
        prefix: String,
    },
    UnusedObjectId,
    DestroyDataObject {
        label: String,
    },
    DataObjects,
    CreateDataObject(StoredRecord),
    AuditKeys {
        prefix: String,
    },
    GenerateAuditKey {
        prefix: String,
    },
    Ping,
}

impl Request {
    /// How long the answer may take; `call` is the deadline of a signature.
    pub fn deadline(&self, call: Duration) -> Duration {
        match self {
            // Generation waits for the token's random source and, in software, for the disk; and a
            // record whose fate is unknown is worse than a slow one.
            Self::Generate(_) | Self::GenerateAuditKey { .. } | Self::CreateDataObject(_) => {
                call.max(Duration::from_secs(30))
            }
            Self::DataObjects => call.max(Duration::from_secs(10)),
            Self::Sign { .. }
            | Self::SignTreeHead { .. }
            | Self::KeyAttributes { .. }
            | Self::Pkcs10 { .. }
            | Self::StoreChain { .. }
            | Self::Certificates { .. }
            | Self::KeyObjects { .. }
            | Self::HeldKey { .. }
            | Self::DestroyPrivateKey { .. }
            | Self::DestroyLeftovers { .. }
            | Self::UnusedObjectId
            | Self::DestroyDataObject { .. }
            | Self::AuditKeys { .. }
            | Self::Ping => call,
        }
    }

    /// True when nothing on the token differs after it: it may be asked again when nobody knows what
    /// became of it. A signature that was not answered has not left this program.
    pub fn changes_nothing(&self) -> bool {
        match self {
            Self::Sign { .. }
            | Self::SignTreeHead { .. }
            | Self::KeyAttributes { .. }
            | Self::Pkcs10 { .. }
            | Self::Certificates { .. }
            | Self::KeyObjects { .. }
            | Self::HeldKey { .. }
            | Self::UnusedObjectId
            | Self::DataObjects
            | Self::AuditKeys { .. }
            | Self::Ping => true,
            Self::Generate(_)
            | Self::StoreChain { .. }
            | Self::DestroyPrivateKey { .. }
            | Self::DestroyLeftovers { .. }
            | Self::DestroyDataObject { .. }
            | Self::CreateDataObject(_)
            | Self::GenerateAuditKey { .. } => false,
        }
    }
}

/// One variant for each type of answer, and the way to it and back.
macro_rules! answers {
    ($($variant:ident: $value:ty),+ $(,)?) => {
        /// What came of a [`Request`].
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub(super) enum Answer {
            $($variant($value),)+
        }

        $(
            impl From<$value> for Answer {
                fn from(value: $value) -> Self {
                    Self::$variant(value)
                }
            }

            impl TryFrom<Answer> for $value {
                type Error = Error;

                fn try_from(answer: Answer) -> Result<Self, Error> {
                    match answer {
                        Answer::$variant(value) => Ok(value),
                        other => Err(other.unasked()),
                    }
                }
            }
        )+
    };
}

answers! {
    Done: (),
    Found: bool,
    Octets: Vec<u8>,
    Certificates: Vec<Vec<u8>>,
    Attributes: KeyAttributes,
    Objects: Vec<KeyObject>,
    Records: Vec<StoredRecord>,
    Key: GeneratedKey,
    AuditKeys: Vec<AuditKey>,
    AuditKey: AuditKey,
    PublicKey: PublicKey,
}

impl Answer {
    /// Only a process that is not itself any more answers something else than was asked.
    fn unasked(&self) -> Error {
        let kind = format!("{self:?}");
        let kind = kind.split(['(', ' ']).next().unwrap_or_default();
        CallError::nonsense(&format!("an answer that was not asked for ({kind})")).into()
    }
}
