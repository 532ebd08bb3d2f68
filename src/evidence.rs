//! The links between evidence values that live in rooms which must not know each other.
//!
//! permitted → fresh (nonce spent) → signed and verified → recorded (on disk) → released
//!
//! The values themselves have private fields and live in the room that mints them. These traits
//! say what the next room asks of the one before it; a test pins which types may implement them.

/// A caller was allowed to do this. Implemented by the permits of `service::policy` only.
pub trait Permitted {}

/// There is a reason to sign these bytes with this key. Implemented where policy is known: for an
/// attestation that is a permit together with its freshly spent nonce, and for a root over attestations
/// each of theirs.
pub trait Warrant {
    /// The exact bytes that the signature will cover (before any hashing the algorithm asks for).
    fn message(&self) -> &[u8];

    /// How many things the signature covers, each of which is to be on record: several only where the message
    /// is the root of a tree over them.
    fn covers(&self) -> usize {
        1
    }
}

/// The records of what a signature covers are on disk. Implemented by `audit::Recorded` only.
pub trait Receipt {
    /// SHA-256 of the signature whose records are durable.
    fn signature_digest(&self) -> &[u8; 32];

    /// How many records that are.
    fn records(&self) -> usize;
}

/// The head of a log's tree, to be signed by the audit key and by no other. Implemented by
/// `audit::checkpoint::Text` only.
pub trait TreeHead {
    /// The exact bytes that the signature will cover.
    fn text(&self) -> &[u8];
}
