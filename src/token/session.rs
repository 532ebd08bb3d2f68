//! A worker's session: the calls we make, a cache of handles, and a rule: after any error the
//! session is thrown away, since an operation begun and not ended would block it for ever
//! (CKR_OPERATION_ACTIVE), and PKCS#11 v2.40 has no way to cancel one.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::{Arc, Weak},
};

use cryptoki::{
    mechanism::MechanismType,
    object::{Attribute, AttributeType, CertificateType, ObjectClass, ObjectHandle},
    session::Session,
};
use parking_lot::Mutex;

use super::{
    APPLICATION, CallError, Error, KeyAttributes, KeyObject,
    certificate::{self, CertificateParts},
    error::Remedy,
    generate, mechanism,
    module::{Connection, HoldsSession, Module},
};
use crate::key::{Algorithm, PublicKey, StoredRecord};

/// Objects that one C_FindObjects asks for: a network HSM is asked that often less.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(512).expect("it is not zero");

/// One worker's view of the token.
pub(super) struct TokenSession {
    module: Arc<Module>,
    live: Arc<Kept>,
}

/// The session that is kept between calls.
#[derive(Default)]
struct Kept(Mutex<Option<Live>>);

impl HoldsSession for Kept {
    fn let_go(&self) {
        self.0.lock().take();
    }
}

/// A session with the handles found in it.
struct Live {
    module: Arc<Module>,
    session: Session,
    private_keys: HashMap<Vec<u8>, ObjectHandle>,
    /// Data objects of ours never change: each is read once. By their raw handles.
    data_objects: HashMap<u64, StoredRecord>,
    /// [`Module::destructions`] when the handles were found.
    destructions: u64,
}

/// Whether a call looks for, makes or destroys objects, and so is made alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Objects {
    Used,
    Touched,
}

/// What came of a call, and the number of the connection it was made through.
type Through<T> = (Result<T, Error>, u64);

impl TokenSession {
    pub fn new(module: Arc<Module>) -> Self {
        let live = Arc::new(Kept::default());
        let held: Weak<Kept> = Arc::downgrade(&live);
        module.register(held);
        Self { module, live }
    }

    /// Runs `call` on a live session; once more on a fresh one when the first was stale, and once
    /// more on a connection made anew when that was lost.
    fn with<T>(&mut self, objects: Objects, mut call: impl FnMut(&mut Live) -> Result<T, Error>) -> Result<T, Error> {
        let (mut result, mut seen) = self.once(objects, &mut call);
        if result.as_ref().is_err_and(|error| error.remedy() == Remedy::FreshSession) {
            (result, seen) = self.once(objects, &mut call);
        }
        let Err(error) = result else { return result };
        if matches!(error, Error::KeyMissing { .. }) && self.module.shows_everything() {
            // The token is there and does not have it: a new login would not bring it back.
            return Err(error);
        }
        match error.remedy() {
            Remedy::FreshSession | Remedy::Reopen if self.module.reopen(seen).is_ok() => {
                let again = self.once(objects, &mut call).0;
                if again.as_ref().is_err_and(Error::is_out_of_memory) {
                    self.module.hung().wear_out();
                }
                again
            }
            // What went wrong first is the one to report.
            Remedy::FreshSession
            | Remedy::Reopen
            | Remedy::Later
            | Remedy::Pin(_)
            | Remedy::Configuration
            | Remedy::Refusal => Err(error),
        }
    }

    fn once<T>(&self, objects: Objects, call: &mut impl FnMut(&mut Live) -> Result<T, Error>) -> Through<T> {
        // In this order everywhere: the connection, the objects, the session.
        let (connection, number) = self.module.connected();
        let _alone = (objects == Objects::Touched).then(|| self.module.objects());
        let mut kept = self.live.0.lock();
        let live = kept.take().map_or_else(|| Live::new(&self.module, connection.as_ref()), Ok);
        let result = live.and_then(|mut live| {
            live.forget_reused_handles();
            let done = call(&mut live)?;
            *kept = Some(live);
            Ok(done)
        });
        (result, number)
    }

    /// Runs `call` on the bare session, for what must not be done twice. It is never repeated, but
    /// the next call finds a connection made anew where this one found it lost.
    pub fn exclusively<T>(&mut self, call: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        let mut call = Some(call);
        let mut run = |live: &mut Live| call.take().expect("`once` calls once")(&live.session);
        let (result, seen) = self.once(Objects::Touched, &mut run);
        if result.as_ref().is_err_and(|error| error.remedy() == Remedy::Reopen) {
            // Whether it succeeds is for the next call to see.
            let _ = self.module.reopen(seen);
        }
        result
    }

    /// The same for what destroys objects.
    fn destructively<T>(&mut self, call: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        let result = self.exclusively(call);
        // It may have destroyed something even if it failed.
        self.module.destroyed_objects();
        result
    }

    /// Whether the token answers: C_GetTokenInfo, which notices a token that has gone while
    /// C_FindObjects still says "nothing found".
    pub fn check_presence(&mut self) -> Result<(), Error> {
        let look = || -> Through<()> {
            let (connection, number) = self.module.connected();
            (self.module.check_presence(connection.as_ref()), number)
        };
        match look() {
            (Err(error), seen) if error.remedy() == Remedy::Reopen => {
                self.module.reopen(seen).map_err(|_| error)?;
                look().0
            }
            (looked, _) => looked,
        }
    }

    /// C_Sign with the private key of this CKA_ID. `input` is what the mechanism takes.
    pub fn sign(&mut self, object_id: &[u8], algorithm: Algorithm, input: &[u8]) -> Result<Vec<u8>, Error> {
        self.with(Objects::Used, |live| {
            let key = live.private_key(object_id)?;
            Ok(live.session.sign(&mechanism::signing(algorithm), key, input)?)
        })
    }

    /// What the token reports of a private key.
    pub fn key_attributes(&mut self, object_id: &[u8]) -> Result<KeyAttributes, Error> {
        self.with(Objects::Touched, |live| {
            let key = live.private_key(object_id)?;
            key_attributes(&live.session, key)
        })
    }

    /// The certificates of the key with this CKA_ID, the key's own first: the newest chain that was
    /// stored whole, or else the self-signed one.
    pub fn certificates(&mut self, object_id: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.with(Objects::Touched, |live| {
            let template = [Attribute::Class(ObjectClass::CERTIFICATE), Attribute::Id(object_id.to_vec())];
            let mut stored = Vec::new();
            for handle in live.session.find_objects(&template)? {
                stored.push((label(&live.session, handle)?, value(&live.session, handle)?));
            }
            Ok(certificate::newest_chain(stored))
        })
    }

    /// Stores a chain for a key. Its own certificate is written last, and makes the chain count.
    pub fn store_chain(
        &mut self,
        object_id: &[u8],
        key_label: &str,
        at: i64,
        chain: &[CertificateParts],
    ) -> Result<(), Error> {
        self.destructively(|session| {
            let stored = [Attribute::Class(ObjectClass::CERTIFICATE), Attribute::Id(object_id.to_vec())];
            let earlier = session.find_objects(&stored)?;
            for (index, parts) in chain.iter().enumerate().rev() {
                let label = certificate::chain_label(key_label, at, index);
                session.create_object(&certificate_template(object_id, &label, parts))?;
            }
            // The new chain is whole: those before it would only fill the token.
            for handle in earlier {
                if certificate::is_chain_label(&label(session, handle)?) {
                    session.destroy_object(handle)?;
                }
            }
            Ok(())
        })
    }

    /// Every data object with our application name.
    pub fn data_objects(&mut self) -> Result<Vec<StoredRecord>, Error> {
        self.with(Objects::Touched, |live| {
            let ours = [Attribute::Class(ObjectClass::DATA), Attribute::Application(APPLICATION.into())];
            let present: Result<Vec<_>, _> = live.session.iter_objects_with_cache_size(&ours, AT_ONCE)?.collect();
            let present = present?;
            live.module.expect_objects(!present.is_empty())?;
            one_handle_each(&present)?;
            let mut known = std::mem::take(&mut live.data_objects);
            for handle in present {
                let record = match known.remove(&handle.handle()) {
                    Some(record) => record,
                    None => StoredRecord { label: label(&live.session, handle)?, value: value(&live.session, handle)? },
                };
                live.data_objects.insert(handle.handle(), record);
            }
            Ok(live.data_objects.values().cloned().collect())
        })
    }

    /// Destroys the data objects of ours with this label.
    pub fn destroy_data_object(&mut self, label: &str) -> Result<(), Error> {
        self.destructively(|session| {
            let template = [
                Attribute::Class(ObjectClass::DATA),
                Attribute::Application(APPLICATION.into()),
                Attribute::Label(label.as_bytes().to_vec()),
            ];
            for handle in session.find_objects(&template)? {
                session.destroy_object(handle)?;
            }
            Ok(())
        })?;
        self.module.may_be_empty();
        Ok(())
    }

    /// CKA_ID and CKA_LABEL of every key object whose label begins with `prefix`.
    pub fn key_objects(&mut self, prefix: &str) -> Result<Vec<KeyObject>, Error> {
        self.with(Objects::Touched, |live| {
            let mut objects = Vec::new();
            for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
                for handle in live.session.find_objects(&[Attribute::Class(class)])? {
                    let label = label(&live.session, handle)?;
                    if label.starts_with(prefix) {
                        objects.push(KeyObject {
                            object_id: object_id(&live.session, handle)?,
                            label,
                            is_private: class == ObjectClass::PRIVATE_KEY,
                        });
                    }
                }
            }
            Ok(objects)
        })
    }

    /// The public half of the key with this CKA_ID and CKA_LABEL, whose two halves must both be there, once.
    pub fn held_key(&mut self, object_id: &[u8], label: &str, algorithm: Algorithm) -> Result<PublicKey, Error> {
        self.with(Objects::Touched, |live| {
            live.half(ObjectClass::PRIVATE_KEY, object_id, label)?;
            let public = live.half(ObjectClass::PUBLIC_KEY, object_id, label)?;
            generate::public_key(&live.session, public, algorithm)
        })
    }

    /// Destroys the private key with this CKA_ID, and proves through a fresh session that it is
    /// gone. True when it was there.
    pub fn destroy_private_key(&mut self, object_id: &[u8]) -> Result<bool, Error> {
        let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(object_id.to_vec())];
        let found = self.destructively(|session| {
            let found = session.find_objects(&template)?;
            for handle in &found {
                session.destroy_object(*handle)?;
            }
            Ok(!found.is_empty())
        })?;
        self.live.let_go();
        let left = self.exclusively(|session| Ok(session.find_objects(&template)?))?;
        if left.is_empty() { Ok(found) } else { Err(CallError::nonsense("a private key that it had destroyed").into()) }
    }

    /// Destroys every object with this CKA_ID: what a generation that never finished left behind.
    pub fn destroy_leftovers(&mut self, object_id: &[u8], prefix: &str) -> Result<(), Error> {
        self.destructively(|session| {
            for handle in session.find_objects(&[Attribute::Id(object_id.to_vec())])? {
                if label(session, handle)?.starts_with(prefix) {
                    session.destroy_object(handle)?;
                }
            }
            Ok(())
        })
    }

    /// Creates a private data object: only a logged-in user can read, add or destroy it.
    pub fn create_data_object(&mut self, record: &StoredRecord, omit_modifiable: bool) -> Result<(), Error> {
        self.exclusively(|session| {
            let mut template = vec![
                Attribute::Class(ObjectClass::DATA),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Application(APPLICATION.into()),
                Attribute::Label(record.label.as_bytes().to_vec()),
                Attribute::Value(record.value.clone()),
            ];
            if !omit_modifiable {
                template.push(Attribute::Modifiable(false));
            }
            session.create_object(&template)?;
            Ok(())
        })
    }
}

impl Live {
    fn new(module: &Arc<Module>, connection: Option<&Connection>) -> Result<Self, Error> {
        Ok(Self {
            session: module.session(connection)?,
            module: Arc::clone(module),
            private_keys: HashMap::new(),
            data_objects: HashMap::new(),
            destructions: module.destructions(),
        })
    }

    /// After a destruction the handles that are known may name other objects.
    fn forget_reused_handles(&mut self) {
        let destructions = self.module.destructions();
        if self.destructions != destructions {
            self.private_keys.clear();
            self.data_objects.clear();
            self.destructions = destructions;
        }
    }

    /// The private key's handle, looked up by class too: some tokens break when C_Sign is given a
    /// public key's handle.
    fn private_key(&mut self, object_id: &[u8]) -> Result<ObjectHandle, Error> {
        if let Some(handle) = self.private_keys.get(object_id) {
            return Ok(*handle);
        }
        let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(object_id.to_vec())];
        let found = {
            let _alone = self.module.objects();
            self.session.find_objects(&template)?
        };
        match found.as_slice() {
            [handle] => {
                self.private_keys.insert(object_id.to_vec(), *handle);
                Ok(*handle)
            }
            [] => Err(Error::KeyMissing { object_id: object_id.to_vec() }),
            [..] => {
                Err(Error::KeyPolicy(format!("{} private keys share the id {}", found.len(), hex::encode(object_id))))
            }
        }
    }
}

impl Live {
    /// The one object of this class with this CKA_ID and CKA_LABEL.
    fn half(&self, class: ObjectClass, object_id: &[u8], label: &str) -> Result<ObjectHandle, Error> {
        let named = [Attribute::Class(class), Attribute::Id(object_id.to_vec()), Attribute::Label(label.into())];
        match self.session.find_objects(&named)?.as_slice() {
            [handle] => Ok(*handle),
            [] => Err(Error::KeyMissing { object_id: object_id.to_vec() }),
            [..] => Err(Error::KeyPolicy(format!("several objects are {label:?}, id {}", hex::encode(object_id)))),
        }
    }
}

/// tpm2-pkcs11 gives a new object the handle of another one after the first object on the token was
/// destroyed, until it is initialized again: what is read through such a handle is the wrong object.
fn one_handle_each(found: &[ObjectHandle]) -> Result<(), Error> {
    let different: HashSet<_> = found.iter().map(ObjectHandle::handle).collect();
    if different.len() < found.len() {
        Err(Error::lost("the module gives two objects the same handle"))
    } else {
        Ok(())
    }
}

/// What the token reports of one private key object.
pub(super) fn key_attributes(session: &Session, key: ObjectHandle) -> Result<KeyAttributes, Error> {
    // Dates are left out: one value that a module cannot give fails the whole call.
    let asked = [
        AttributeType::Local,
        AttributeType::Sensitive,
        AttributeType::AlwaysSensitive,
        AttributeType::Extractable,
        AttributeType::NeverExtractable,
        AttributeType::Modifiable,
        AttributeType::Sign,
        AttributeType::Decrypt,
        AttributeType::Unwrap,
        AttributeType::Derive,
    ];
    let mut attributes = KeyAttributes::from_token(&session.get_attributes(key, &asked)?);
    attributes.key_gen_mechanism = generation_mechanism(session, key);
    Ok(attributes)
}

/// How the key was made, where the module can say it: asked alone, since one that cannot fails the
/// whole call. Told in evidence, and not judged.
fn generation_mechanism(session: &Session, key: ObjectHandle) -> Option<String> {
    match session.get_attributes(key, &[AttributeType::KeyGenMechanism]).ok()?.pop()? {
        Attribute::KeyGenMechanism(MechanismType::ECC_KEY_PAIR_GEN) => Some("CKM_EC_KEY_PAIR_GEN".into()),
        Attribute::KeyGenMechanism(MechanismType::ECC_EDWARDS_KEY_PAIR_GEN) => {
            Some("CKM_EC_EDWARDS_KEY_PAIR_GEN".into())
        }
        Attribute::KeyGenMechanism(other) => Some(other.to_string()),
        _ => None,
    }
}

/// CKA_VALUE of an object.
fn value(session: &Session, object: ObjectHandle) -> Result<Vec<u8>, Error> {
    match session.get_attributes(object, &[AttributeType::Value])?.pop() {
        Some(Attribute::Value(value)) => Ok(value),
        _ => Err(CallError::nonsense("an object without a value").into()),
    }
}

/// CKA_LABEL of an object.
pub(super) fn label(session: &Session, object: ObjectHandle) -> Result<String, Error> {
    match session.get_attributes(object, &[AttributeType::Label])?.pop() {
        Some(Attribute::Label(label)) => Ok(String::from_utf8_lossy(&label).into_owned()),
        _ => Err(CallError::nonsense("an object without a label").into()),
    }
}

/// CKA_ID of an object.
pub(super) fn object_id(session: &Session, object: ObjectHandle) -> Result<Vec<u8>, Error> {
    match session.get_attributes(object, &[AttributeType::Id])?.pop() {
        Some(Attribute::Id(id)) => Ok(id),
        _ => Err(CallError::nonsense("an object without an id").into()),
    }
}

/// The attributes of a certificate object.
pub(super) fn certificate_template(id: &[u8], label: &str, parts: &CertificateParts) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::CERTIFICATE),
        Attribute::CertificateType(CertificateType::X_509),
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Id(id.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Subject(parts.subject.clone()),
        Attribute::Issuer(parts.issuer.clone()),
        Attribute::SerialNumber(parts.serial.clone()),
        Attribute::Value(parts.der.clone()),
    ]
}
