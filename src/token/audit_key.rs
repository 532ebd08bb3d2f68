//! The audit key: it signs the heads of the audit trail's tree and nothing else. It is made with the
//! same strict template as every key here, but it is no key of the ledger: its label has another
//! form (`<signer> audit <number> <algorithm>`), and only [`Token::sign_tree_head`](super::Token::sign_tree_head)
//! uses it.

use cryptoki::{
    object::{Attribute, ObjectClass},
    session::Session,
};

use serde::{Deserialize, Serialize};

use super::{
    Error, generate, mechanism,
    module::Module,
    session,
    template::{self, Naming},
};
use crate::key::{Algorithm, PublicKey, SignerId};

/// A complete audit key on the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditKey {
    number: u32,
    label: String,
    pub(super) object_id: Vec<u8>,
    pub(super) public_key: PublicKey,
}

impl AuditKey {
    /// CKA_LABEL.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The public half, with which checkpoints are verified.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

/// The beginning of the labels of a signer's audit keys.
#[must_use]
pub fn label_prefix(signer: &SignerId) -> String {
    format!("{signer} audit ")
}

/// Number and algorithm in what follows the prefix.
fn parse_label(rest: &str) -> Option<(u32, Algorithm)> {
    let (number, algorithm) = rest.split_once(' ')?;
    let algorithm = Algorithm::ALL.into_iter().find(|known| known.as_str() == algorithm)?;
    Some((number.parse().ok()?, algorithm))
}

/// Which algorithm a new audit key has: Ed25519 where the token offers it, which every reader of
/// signed notes knows, else P-256.
pub(super) fn algorithm(offered: &[Algorithm]) -> Result<Algorithm, Error> {
    [Algorithm::Ed25519, Algorithm::P256]
        .into_iter()
        .find(|wanted| offered.contains(wanted))
        .ok_or_else(|| Error::KeyPolicy("this token offers neither Ed25519 nor P-256 for the audit key".into()))
}

/// Makes a new audit key.
pub(super) fn make(session: &Session, module: &Module, prefix: &str) -> Result<AuditKey, Error> {
    let algorithm = algorithm(module.algorithms())?;
    let number = next_number(session, prefix)?;
    let label = format!("{prefix}{number} {algorithm}");
    let object_id = generate::unused_id(session)?;
    let naming = Naming { id: &object_id, label: &label, algorithm };
    let (public, private) = generate::pair(
        session,
        &mechanism::generation(algorithm),
        // It has no end date: what it signed is verified for as long as the trail is kept.
        &template::undated_public_key(&naming, module.omitted()),
        &template::private_key(&naming, module.omitted()),
    )?;
    let checked = session::key_attributes(session, private)
        .and_then(|found| found.check(module.omitted(), module.reports_local()).map_err(Error::KeyPolicy))
        .and_then(|()| generate::public_key(session, public, algorithm));
    if checked.is_err() {
        // The first error is the one to report.
        let _ = session.destroy_object(private);
        let _ = session.destroy_object(public);
        module.destroyed_objects();
    }
    Ok(AuditKey { number, public_key: checked?, label, object_id })
}

/// Every pair whose label has the form; a half that a crash left is passed over.
pub(super) fn find(session: &Session, prefix: &str) -> Result<Vec<AuditKey>, Error> {
    let mut found = Vec::new();
    for public in session.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY)])? {
        let label = session::label(session, public)?;
        let Some((number, algorithm)) = label.strip_prefix(prefix).and_then(parse_label) else { continue };
        let object_id = session::object_id(session, public)?;
        let private = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(object_id.clone())];
        if session.find_objects(&private)?.len() == 1 {
            let public_key = generate::public_key(session, public, algorithm)?;
            found.push(AuditKey { number, label, object_id, public_key });
        }
    }
    found.sort_by(|a, b| (b.number, &a.object_id).cmp(&(a.number, &b.object_id)));
    Ok(found)
}

/// Above every number in use, by whatever object.
fn next_number(session: &Session, prefix: &str) -> Result<u32, Error> {
    let mut last = 0;
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        for object in session.find_objects(&[Attribute::Class(class)])? {
            let label = session::label(session, object)?;
            let number = label.strip_prefix(prefix).and_then(parse_label).map_or(0, |(number, _)| number);
            last = last.max(number);
        }
    }
    Ok(last + 1)
}
