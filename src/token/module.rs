//! The process-wide PKCS#11 context: the loaded module, the one token, and the login.

use std::path::Path;

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error as CryptokiError, RvError},
    mechanism::MechanismType,
    object::Attribute,
    session::{Session, UserType},
    slot::{Slot, TokenInfo},
};
use parking_lot::{Mutex, ReentrantMutex, ReentrantMutexGuard};
use secrecy::SecretString;

use super::{Config, Error, OptionalAttribute, PinProblem, TokenUri, error, mechanism};
use crate::key::Algorithm;

/// What names the token that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIdentity {
    pub label: String,
    pub serial: String,
    pub manufacturer: String,
    pub model: String,
}

impl TokenIdentity {
    pub(super) fn of(info: &TokenInfo) -> Self {
        Self {
            label: info.label().trim_end().to_owned(),
            serial: info.serial_number().trim_end().to_owned(),
            manufacturer: info.manufacturer_id().trim_end().to_owned(),
            model: info.model().trim_end().to_owned(),
        }
    }

    /// The RFC 7512 URI of this very token.
    #[must_use]
    pub fn uri(&self) -> TokenUri {
        TokenUri::of(&self.label, &self.serial)
    }
}

/// The context. Login belongs to the process, not to a session, and ends with the last session:
/// the anchor keeps it.
pub(super) struct Module {
    context: Pkcs11,
    slot: Slot,
    /// `Session` is not Sync; nothing is ever called on this one.
    anchor: Mutex<Option<Session>>,
    /// Some modules hand the same number to two threads that open sessions at once (tpm2-pkcs11).
    opening: Mutex<()>,
    identity: TokenIdentity,
    algorithms: Vec<Algorithm>,
    omit: Vec<OptionalAttribute>,
    reports_local: bool,
    /// Held while objects are looked for, made or destroyed, where the profile asks for it.
    objects: Option<ReentrantMutex<()>>,
}

impl Module {
    /// Loads, initializes, finds the token, looks at its PIN flags, logs in exactly once.
    pub fn open(config: &Config, pin: &SecretString) -> Result<Self, Error> {
        let context = load(&config.module)?;
        match Self::log_in(context.clone(), config, pin) {
            Ok(module) => Ok(module),
            Err(error) => {
                // Leave the process as if the module had never been loaded, so that a caller may
                // look again; a failing finalize changes nothing about the error to report.
                let _ = context.finalize();
                Err(error)
            }
        }
    }

    fn log_in(context: Pkcs11, config: &Config, pin: &SecretString) -> Result<Self, Error> {
        let (slot, info) = find_token(&context, &config.uri)?;
        refuse_risky_pin(&info)?;
        let anchor = context.open_rw_session(slot)?;
        match anchor.login(UserType::User, Some(pin)) {
            Ok(()) | Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(CryptokiError::Pkcs11(code, function)) => {
                return Err(match error::pin_problem(code) {
                    Some(problem) => Error::Pin(problem),
                    None => CryptokiError::Pkcs11(code, function).into(),
                });
            }
            Err(other) => return Err(other.into()),
        }
        let algorithms = match &config.algorithms {
            Some(named) => named.clone(),
            None => offered_algorithms(&context, slot, &anchor)?,
        };
        Ok(Self {
            identity: TokenIdentity::of(&info),
            context,
            slot,
            anchor: Mutex::new(Some(anchor)),
            opening: Mutex::new(()),
            algorithms,
            omit: config.omit.clone(),
            reports_local: config.reports_local,
            objects: config.objects_one_at_a_time.then(|| ReentrantMutex::new(())),
        })
    }

    /// A new read/write session, already logged in.
    pub fn session(&self) -> Result<Session, Error> {
        let _one_at_a_time = self.opening.lock();
        Ok(self.context.open_rw_session(self.slot)?)
    }

    /// The right to look for, make or destroy objects, until it is dropped. SoftHSM2 takes a file that
    /// another thread is just writing into its index, and then fails both; and its locks against other
    /// processes end with the first thread that closes the file (POSIX record locks).
    pub fn objects(&self) -> Option<ReentrantMutexGuard<'_, ()>> {
        self.objects.as_ref().map(ReentrantMutex::lock)
    }

    /// Asks the token for its information: the one call that notices a vanished token everywhere.
    pub fn check_presence(&self) -> Result<(), Error> {
        let info = self.context.get_token_info(self.slot)?;
        let present = TokenIdentity::of(&info);
        if present == self.identity {
            return Ok(());
        }
        Err(Error::NoToken { uri: self.identity.uri(), present: present.uri().to_string() })
    }

    /// Closes the last session, which logs out, and finalizes. Every other session must be gone:
    /// session numbers begin anew after C_Initialize, and a stale one would close a new one.
    pub fn close(&self) -> Result<(), Error> {
        match self.anchor.lock().take() {
            Some(anchor) => {
                drop(anchor);
                Ok(self.context.clone().finalize()?)
            }
            None => Ok(()),
        }
    }

    pub fn identity(&self) -> &TokenIdentity {
        &self.identity
    }

    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    pub fn omitted(&self) -> &[OptionalAttribute] {
        &self.omit
    }

    pub fn omits(&self, part: OptionalAttribute) -> bool {
        self.omit.contains(&part)
    }

    pub fn reports_local(&self) -> bool {
        self.reports_local
    }
}

/// Loads and initializes a module.
pub(super) fn load(path: &Path) -> Result<Pkcs11, Error> {
    let context = Pkcs11::new(path).map_err(|source| Error::Module { path: path.to_owned(), source: source.into() })?;
    context
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .map_err(|source| Error::Initialize { path: path.to_owned(), source: source.into() })?;
    Ok(context)
}

/// The one initialised token that the URI names. Slot numbers are not looked at: they change.
fn find_token(context: &Pkcs11, uri: &TokenUri) -> Result<(Slot, TokenInfo), Error> {
    let mut matching = Vec::new();
    let mut present = Vec::new();
    for slot in context.get_slots_with_token()? {
        // One broken token must not hide the others.
        let Ok(info) = context.get_token_info(slot) else { continue };
        if !info.token_initialized() {
            continue;
        }
        let TokenIdentity { label, serial, manufacturer, model } = TokenIdentity::of(&info);
        present.push(TokenUri::of(&label, &serial).to_string());
        if uri.matches(&label, &serial, &manufacturer, &model) {
            matching.push((slot, info));
        }
    }
    match matching.len() {
        0 => {
            let present = if present.is_empty() { "none".into() } else { present.join(", ") };
            Err(Error::NoToken { uri: uri.clone(), present })
        }
        1 => Ok(matching.remove(0)),
        count => Err(Error::AmbiguousToken { uri: uri.clone(), count }),
    }
}

/// Looks at the PIN's flags before it is tried: a failed try on the last one would lock the token.
fn refuse_risky_pin(info: &TokenInfo) -> Result<(), Error> {
    if info.user_pin_locked() {
        return Err(Error::Pin(PinProblem::Locked));
    }
    if info.user_pin_final_try() {
        return Err(Error::Pin(PinProblem::FinalTry));
    }
    if info.user_pin_to_be_changed() {
        return Err(Error::Pin(PinProblem::MustBeChanged));
    }
    if !info.user_pin_initialized() {
        return Err(Error::Pin(PinProblem::NotInitialised));
    }
    if info.user_pin_count_low() {
        tracing::warn!("a wrong user PIN was tried on this token since the last good login");
    }
    Ok(())
}

/// Which of our algorithms the token really does. The mechanism list does not name curves, so each
/// is tried once with a session key, which leaves nothing on the token.
fn offered_algorithms(context: &Pkcs11, slot: Slot, session: &Session) -> Result<Vec<Algorithm>, Error> {
    let mechanisms: Vec<MechanismType> = context.get_mechanism_list(slot)?;
    let offers = |algorithm: &Algorithm| {
        if !mechanisms.contains(&mechanism::allowed(*algorithm)) {
            return false;
        }
        let id = Attribute::Id(b"verification-signer probe".to_vec());
        let public = [Attribute::Token(false), Attribute::EcParams(mechanism::ec_params(*algorithm)), id.clone()];
        let private = [Attribute::Token(false), Attribute::Private(true), Attribute::Sign(true), id];
        match session.generate_key_pair(&mechanism::generation(*algorithm), &public, &private) {
            Ok((public, private)) => {
                // Session objects end with the session anyway.
                let _ = session.destroy_object(public).and(session.destroy_object(private));
                true
            }
            Err(_) => false,
        }
    };
    Ok(Algorithm::ALL.into_iter().filter(offers).collect())
}
