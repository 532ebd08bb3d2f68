//! Generating a signing key: pair, read-back, proof, certificate. Nothing here makes the key
//! usable: that is the ledger's record, written after this has succeeded. A crash before it
//! leaves objects that nothing refers to.

use cryptoki::{
    error::RvError,
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectHandle},
    session::Session,
};
use serde::{Deserialize, Serialize};

use super::{
    CallError, Error, KeyAttributes,
    certificate::{self, CertificateRequest},
    mechanism,
    module::Module,
    session::{self, TokenSession},
    template::{self, Naming},
};
use crate::{
    key::{Algorithm, KeyId, PublicKey, Signature},
    timestamp::Timestamp,
};

/// The key that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerateRequest {
    pub id: KeyId,
    /// CKA_ID; drawn and announced before, so that a crash's leftovers can be told.
    pub object_id: Vec<u8>,
    pub algorithm: Algorithm,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// The key as it stands on the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedKey {
    pub object_id: Vec<u8>,
    pub label: String,
    pub public_key: PublicKey,
    pub attributes: KeyAttributes,
    /// Names of template parts that the profile leaves out.
    pub omitted: Vec<String>,
}

/// Generates, checks and certifies a key; on any failure the new objects are destroyed again.
pub(super) fn generate(
    session: &mut TokenSession,
    module: &Module,
    request: &GenerateRequest,
) -> Result<GeneratedKey, Error> {
    if !module.algorithms().contains(&request.algorithm) {
        let offered = module.algorithms().iter().map(|a| a.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Error::KeyPolicy(format!("this token does not offer {}; it offers: {offered}", request.algorithm)));
    }
    session.exclusively(|session| {
        let label = format!("{} {}", request.id, request.algorithm);
        let id = request.object_id.clone();
        if !session.find_objects(&[Attribute::Id(id.clone())])?.is_empty() {
            // Generating under a taken id replaces the old key on some modules (NSS).
            return Err(Error::KeyPolicy(format!("the id {} is taken on the token", hex::encode(&id))));
        }
        let naming = Naming { id: &id, label: &label, algorithm: request.algorithm };
        let validity = (request.not_before, request.not_after);
        let (public, private) = pair(
            session,
            &mechanism::generation(request.algorithm),
            &template::public_key(&naming, validity, module.omitted()),
            &template::private_key(&naming, module.omitted()),
        )?;
        match inspect_and_certify(session, module, request, &naming, public, private) {
            Ok((public_key, attributes)) => Ok(GeneratedKey {
                omitted: module.omitted().iter().map(|part| part.name().to_owned()).collect(),
                object_id: id.clone(),
                public_key,
                attributes,
                label,
            }),
            Err(error) => {
                // The first error is the one to report; a pair that stays behind is never used,
                // since no record names it.
                let _ = session.destroy_object(private);
                let _ = session.destroy_object(public);
                module.destroyed_objects();
                Err(error)
            }
        }
    })
}

/// C_GenerateKeyPair; the public key's handle first.
pub(super) fn pair(
    session: &Session,
    mechanism: &Mechanism<'_>,
    public: &[Attribute],
    private: &[Attribute],
) -> Result<(ObjectHandle, ObjectHandle), Error> {
    session.generate_key_pair(mechanism, public, private).map_err(|error| refused(error.into()))
}

fn inspect_and_certify(
    session: &Session,
    module: &Module,
    request: &GenerateRequest,
    naming: &Naming<'_>,
    public: ObjectHandle,
    private: ObjectHandle,
) -> Result<(PublicKey, KeyAttributes), Error> {
    let attributes = session::key_attributes(session, private)?;
    attributes.check(module.omitted(), module.reports_local()).map_err(Error::KeyPolicy)?;
    let public_key = public_key(session, public, request.algorithm)?;
    let mut serial = [0; 16];
    session.generate_random_slice(&mut serial)?;
    let certificate = CertificateRequest {
        common_name: &request.id.to_string(),
        public_key: &public_key,
        validity: (request.not_before, request.not_after),
        serial,
    };
    // Verifying this signature is the proof that the pair belongs together.
    let parts = certificate::self_signed(&certificate, |message| sign(session, private, &public_key, message))?;
    session.create_object(&session::certificate_template(naming.id, naming.label, &parts))?;
    Ok((public_key, attributes))
}

fn sign(session: &Session, key: ObjectHandle, public_key: &PublicKey, message: &[u8]) -> Result<Signature, Error> {
    let algorithm = public_key.algorithm();
    let raw = session.sign(&mechanism::signing(algorithm), key, &algorithm.token_input(message))?;
    let signature = public_key.normalize(&raw).map_err(|_| Error::BadSignature)?;
    public_key.verify(message, &signature).map_err(|_| Error::BadSignature)?;
    Ok(signature)
}

/// A random CKA_ID that no object has.
pub(super) fn unused_id(session: &Session) -> Result<Vec<u8>, Error> {
    let mut id = vec![0; 16];
    getrandom::fill(&mut id).map_err(|_| CallError::nonsense("no random numbers (operating system)"))?;
    if session.find_objects(&[Attribute::Id(id.clone())])?.is_empty() {
        return Ok(id);
    }
    Err(CallError::nonsense("an object with a random id that was just drawn").into())
}

pub(super) fn public_key(session: &Session, public: ObjectHandle, algorithm: Algorithm) -> Result<PublicKey, Error> {
    match session.get_attributes(public, &[AttributeType::EcPoint])?.pop() {
        Some(Attribute::EcPoint(point)) => PublicKey::from_ec_point(algorithm, &point)
            .map_err(|_| CallError::nonsense("a public key that is not on its curve").into()),
        _ => Err(CallError::nonsense("a public key without CKA_EC_POINT").into()),
    }
}

/// The codes for a template that the module does not take (PKCS#11 v3.1 §4.1.1) get a word of advice.
fn refused(error: CallError) -> Error {
    match error.code() {
        Some(
            RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::AttributeReadOnly
            | RvError::TemplateIncomplete
            | RvError::TemplateInconsistent,
        ) => Error::KeyPolicy(format!(
            "the token refused to generate a key with the strict template ({error}); \
             if its profile in hsm-config names attributes to omit, add them to token.omit"
        )),
        _ => error.into(),
    }
}
