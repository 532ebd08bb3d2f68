//! Keys as the product speaks of them: names, algorithms, public halves, states, and the ledger
//! records whose fold says which key is in which state. Pure: no token, no clock, no I/O.

pub mod algorithm;
pub mod entry;
pub mod id;
pub mod intent;
pub mod jwk;
pub mod ledger;
pub mod line;
pub mod public;
pub mod record;
pub mod revocation;
pub mod rotation;
pub mod seen;
pub mod standing;
pub mod state;

pub use algorithm::Algorithm;
pub use entry::{KeyEntry, Revoked};
pub use id::{KeyId, SignerId};
pub use ledger::{Ledger, LedgerUnavailable};
pub use line::Line;
pub use public::{PublicKey, Signature};
pub use record::{Event, Record};
pub use revocation::{Revocation, RevocationReason};
pub use rotation::{Rotation, RotationStatus};
pub use standing::{LedgerError, Standing, StoredRecord};
pub use state::KeyState;
