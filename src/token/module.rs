//! The process-wide PKCS#11 context: the loaded module, the one token, and the login.

use std::{
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error as CryptokiError, RvError},
    mechanism::MechanismType,
    object::Attribute,
    session::{Session, SessionState, UserType},
    slot::{Slot, TokenInfo},
};
use parking_lot::{Mutex, ReentrantMutex, ReentrantMutexGuard, RwLock, RwLockReadGuard};

use super::{
    Config, Error, OptionalAttribute, PinProblem, TokenUri, capacity,
    error::{Remedy, remedy},
    hung::Hung,
    mechanism,
    pin::{GivesPin, RefusedPin},
    recovery::Recovery,
};
use crate::key::Algorithm;

/// What names the token that is in use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

/// The context, and the connection to the token when there is one.
pub(super) struct Module {
    context: Pkcs11,
    config: Config,
    pins: Arc<dyn GivesPin>,
    identity: TokenIdentity,
    algorithms: Vec<Algorithm>,
    /// Read by whoever calls the module; written while it is finalized and initialized again, which
    /// under a call in progress would crash (PKCS#11 v3.1 §5.4 leaves it undefined).
    connection: RwLock<Option<Connection>>,
    /// Counts the connections: whatever was found through an earlier one is void.
    generation: AtomicU64,
    /// What holds sessions: emptied before the module is finalized, since session numbers begin anew
    /// after C_Initialize, and closing a stale one would close a new one.
    holders: Mutex<Vec<Weak<dyn HoldsSession>>>,
    recovery: Mutex<Recovery>,
    /// Objects of ours were seen on it.
    has_objects: AtomicBool,
    /// Counts what was destroyed: some modules give the handle of a destroyed object to the next one
    /// (tpm2-pkcs11), although a handle names one object as long as the session lives (PKCS#11 v3.1 §2.3).
    destructions: AtomicU64,
    hung: Hung,
    /// Some modules hand the same number to two threads that open sessions at once (tpm2-pkcs11).
    opening: Mutex<()>,
    /// Held while objects are looked for, made or destroyed, where the profile asks for it.
    objects: Option<ReentrantMutex<()>>,
}

/// Something with a session that can be told to let it go.
pub(super) trait HoldsSession: Send + Sync {
    /// Closes the session. Only called while nobody is in the module.
    fn let_go(&self);
}

/// A login. It belongs to the process, not to a session, and ends with the last session: the anchor
/// keeps it.
pub(super) struct Connection {
    pub slot: Slot,
    /// That this application may have.
    most_sessions: Option<u64>,
    /// `Session` is not Sync. Nothing is done with this one; it is asked whether the login still holds.
    anchor: Mutex<Session>,
}

/// How long a call in progress may hold up making the connection anew.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a call that hangs may hold up those that would rather not be made beside it.
const HOLD_UP: Duration = Duration::from_millis(500);

impl Module {
    /// Loads, initializes, finds the token, looks at its PIN flags, logs in exactly once.
    pub fn open(config: &Config, pins: Arc<dyn GivesPin>) -> Result<Self, Error> {
        let context = load(&config.module)?;
        let connected = connect(&context, &config.uri, &*pins)
            .and_then(|(connection, identity)| Ok((offered_by(config, &context, &connection)?, connection, identity)));
        match connected {
            Ok((algorithms, connection, identity)) => Ok(Self {
                context,
                config: config.clone(),
                pins,
                identity,
                algorithms,
                connection: RwLock::new(Some(connection)),
                generation: AtomicU64::new(1),
                holders: Mutex::default(),
                recovery: Mutex::default(),
                has_objects: AtomicBool::new(false),
                destructions: AtomicU64::new(0),
                hung: Hung::new(config.hung_calls),
                opening: Mutex::new(()),
                objects: config.objects_one_at_a_time.then(|| ReentrantMutex::new(())),
            }),
            Err(error) => {
                // Leave the process as if the module had never been loaded, so that a caller may
                // look again; a failing finalize changes nothing about the error to report.
                let _ = context.finalize();
                Err(error)
            }
        }
    }

    /// Has this one let go of its session whenever the connection is made anew.
    pub fn register(&self, holder: Weak<dyn HoldsSession>) {
        let mut holders = self.holders.lock();
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(holder);
    }

    /// The right to call the module, until it is dropped, and the number of the connection.
    pub fn connected(&self) -> (RwLockReadGuard<'_, Option<Connection>>, u64) {
        let connection = self.connection.read();
        (connection, self.generation.load(Ordering::Acquire))
    }

    /// A new read/write session, already logged in.
    pub fn session(&self, connection: Option<&Connection>) -> Result<Session, Error> {
        let Connection { slot, .. } = connection.ok_or(LOST)?;
        let _one_at_a_time = self.opening.try_lock_for(HOLD_UP);
        Ok(self.context.open_rw_session(*slot)?)
    }

    /// Makes the connection anew, unless somebody has done so since the connection `seen`. Once for
    /// all workers, and not more often than [`Recovery`] allows.
    pub fn reopen(&self, seen: u64) -> Result<(), Error> {
        let mut recovery = self.recovery.lock();
        if self.generation.load(Ordering::Acquire) != seen {
            return Ok(());
        }
        recovery.permit(Instant::now())?;
        let Some(mut connection) = self.connection.try_write_for(PATIENCE) else {
            recovery.failed(Instant::now(), None);
            if self.hung.is_one() {
                self.hung.too_much("a call that hangs keeps the module from being initialized again");
            }
            return Err(Error::lost("a call in progress keeps the module from being initialized again"));
        };
        for holder in self.holders.lock().iter().filter_map(Weak::upgrade) {
            holder.let_go();
        }
        *connection = None;
        match self.connect_again() {
            Ok(made) => {
                *connection = Some(made);
                self.generation.fetch_add(1, Ordering::AcqRel);
                recovery.succeeded(Instant::now());
                tracing::warn!("the connection to the token was made anew");
                Ok(())
            }
            Err(error) => {
                recovery.failed(Instant::now(), Some(&error));
                Err(error)
            }
        }
    }

    /// Nobody is in the module, and no session is open.
    fn connect_again(&self) -> Result<Connection, Error> {
        // It fails when the module was not initialized: then there is nothing to finalize.
        let _ = self.context.clone().finalize();
        initialize(&self.context, &self.config.module)?;
        let (connection, present) = connect(&self.context, &self.config.uri, &*self.pins)?;
        if present != self.identity {
            return Err(Error::NoToken { uri: self.identity.uri(), present: present.uri().to_string() });
        }
        Ok(connection)
    }

    /// The right to look for, make or destroy objects, until it is dropped; none where it cannot be had in
    /// time, since whoever holds it hangs. SoftHSM2 takes a file that
    /// another thread is just writing into its index, and then fails both; and its locks against other
    /// processes end with the first thread that closes the file (POSIX record locks).
    pub fn objects(&self) -> Option<ReentrantMutexGuard<'_, ()>> {
        self.objects.as_ref().and_then(|objects| objects.try_lock_for(HOLD_UP))
    }

    /// Whether the token is there and we are logged in, as far as it says so itself. A token that has
    /// closed every session has ended the login too: it then shows no private objects, without an error.
    pub fn shows_everything(&self) -> bool {
        let (connection, _) = self.connected();
        self.check_presence(connection.as_ref()).is_ok()
            && connection.as_ref().is_some_and(|connection| is_logged_in(&connection.anchor.lock()))
    }

    /// Asks the token for its information: the one call that notices a vanished token everywhere.
    pub fn check_presence(&self, connection: Option<&Connection>) -> Result<(), Error> {
        let Connection { slot, .. } = connection.ok_or(LOST)?;
        let present = TokenIdentity::of(&self.context.get_token_info(*slot)?);
        if present == self.identity {
            return Ok(());
        }
        Err(Error::NoToken { uri: self.identity.uri(), present: present.uri().to_string() })
    }

    /// Closes the last session, which logs out, and finalizes, for good. Every other session must be
    /// gone.
    pub fn close(&self) -> Result<(), Error> {
        self.recovery.lock().end();
        match self.connection.write().take() {
            Some(connection) => {
                drop(connection);
                Ok(self.context.clone().finalize()?)
            }
            None => Ok(()),
        }
    }

    /// Whether objects of ours are seen. A token that has shown some and shows none is not empty: it
    /// is away (SoftHSM2 whose directory was moved answers CKR_OK and finds nothing).
    pub fn expect_objects(&self, seen: bool) -> Result<(), Error> {
        if seen {
            self.has_objects.store(true, Ordering::Relaxed);
        } else if self.has_objects.load(Ordering::Relaxed) {
            return Err(Error::lost("the token shows none of its objects any more"));
        }
        Ok(())
    }

    /// What this number was when a handle was found, it must be when the handle is used.
    pub fn destructions(&self) -> u64 {
        self.destructions.load(Ordering::Acquire)
    }

    /// Handles may name other objects now.
    pub fn destroyed_objects(&self) {
        self.destructions.fetch_add(1, Ordering::AcqRel);
    }

    /// An object of ours was destroyed: it may have been the last one.
    pub fn may_be_empty(&self) {
        self.has_objects.store(false, Ordering::Relaxed);
    }

    /// Calls through this module that do not end.
    pub fn hung(&self) -> &Hung {
        &self.hung
    }

    pub fn identity(&self) -> &TokenIdentity {
        &self.identity
    }

    /// As many workers as wanted, or as the token has sessions for.
    pub fn workers(&self, wanted: usize) -> usize {
        capacity::workers(wanted, self.connected().0.as_ref().and_then(|connection| connection.most_sessions))
    }

    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    pub fn omitted(&self) -> &[OptionalAttribute] {
        &self.config.omit
    }

    pub fn omits(&self, part: OptionalAttribute) -> bool {
        self.config.omit.contains(&part)
    }

    pub fn reports_local(&self) -> bool {
        self.config.reports_local
    }
}

/// There is no connection now.
const LOST: Error = Error::lost("the token is away; it is being looked for");

/// Loads and initializes a module.
pub(super) fn load(path: &Path) -> Result<Pkcs11, Error> {
    let context = Pkcs11::new(path).map_err(|source| Error::Module { path: path.to_owned(), source: source.into() })?;
    initialize(&context, path)?;
    Ok(context)
}

/// C_Initialize.
fn initialize(context: &Pkcs11, path: &Path) -> Result<(), Error> {
    context
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .map_err(|source| Error::Initialize { path: path.to_owned(), source: source.into() })
}

/// Finds the token and logs in, exactly once. The PIN is asked for when the token is there, and not
/// kept.
pub(super) fn connect(
    context: &Pkcs11,
    uri: &TokenUri,
    pins: &dyn GivesPin,
) -> Result<(Connection, TokenIdentity), Error> {
    let (slot, info) = find_token(context, uri)?;
    refuse_risky_pin(&info)?;
    let identity = TokenIdentity::of(&info);
    let anchor = context.open_rw_session(slot)?;
    let pin = pins.pin(&identity, info.user_pin_count_low())?;
    let login = anchor.login(UserType::User, Some(&pin));
    pins.answered(&identity, login.is_ok());
    match login {
        Ok(()) => {}
        // Believed only when the session says so too: without a login every key of ours would be missing.
        Err(CryptokiError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) if is_logged_in(&anchor) => {}
        Err(CryptokiError::Pkcs11(code, function)) => {
            return Err(match remedy(code) {
                Remedy::Pin(problem) => {
                    if problem == PinProblem::Incorrect {
                        pins.refused(RefusedPin::of(&identity, &pin));
                    }
                    Error::Pin(problem)
                }
                Remedy::FreshSession | Remedy::Reopen | Remedy::Later | Remedy::Configuration | Remedy::Refusal => {
                    Error::Login(CryptokiError::Pkcs11(code, function).into())
                }
            });
        }
        Err(other) => return Err(Error::Login(other.into())),
    }
    let most_sessions = capacity::most_sessions(&info);
    Ok((Connection { slot, most_sessions, anchor: Mutex::new(anchor) }, identity))
}

/// Whether a session is open, with the user logged in.
fn is_logged_in(session: &Session) -> bool {
    let state = session.get_session_info().map(|info| info.session_state());
    matches!(state, Ok(SessionState::RwUser | SessionState::RoUser))
}

/// The algorithms that the profile names, or else those found out.
fn offered_by(config: &Config, context: &Pkcs11, connection: &Connection) -> Result<Vec<Algorithm>, Error> {
    match &config.algorithms {
        Some(named) => Ok(named.clone()),
        None => offered_algorithms(context, connection.slot, &context.open_rw_session(connection.slot)?),
    }
}

/// The one initialised token that the URI names. Slot numbers are not looked at: they change.
pub(super) fn find_token(context: &Pkcs11, uri: &TokenUri) -> Result<(Slot, TokenInfo), Error> {
    let mut matching = Vec::new();
    let mut present = Vec::new();
    for slot in context.get_slots_with_token()? {
        let info = match context.get_token_info(slot) {
            Ok(info) => info,
            // One broken token must not hide the others.
            Err(error) => {
                present.push(format!("one in slot {} whose information cannot be read ({error})", slot.id()));
                continue;
            }
        };
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
    if let Some(problem) = pin_problem(info) {
        return Err(Error::Pin(problem));
    }
    if info.user_pin_count_low() {
        tracing::warn!("a wrong user PIN was tried on this token since the last good login");
    }
    Ok(())
}

/// What the token's flags say against trying the PIN.
pub(super) fn pin_problem(info: &TokenInfo) -> Option<PinProblem> {
    [
        (info.user_pin_locked(), PinProblem::Locked),
        (info.user_pin_final_try(), PinProblem::FinalTry),
        (info.user_pin_to_be_changed(), PinProblem::MustBeChanged),
        (!info.user_pin_initialized(), PinProblem::NotInitialised),
    ]
    .into_iter()
    .find_map(|(holds, problem)| holds.then_some(problem))
}

/// Templates of a key pair that ends with its session.
pub(super) fn session_pair(algorithm: Algorithm) -> [Vec<Attribute>; 2] {
    let id = Attribute::Id(b"verification-signer probe".to_vec());
    [
        vec![Attribute::Token(false), Attribute::EcParams(mechanism::ec_params(algorithm)), id.clone()],
        vec![Attribute::Token(false), Attribute::Private(true), Attribute::Sign(true), id],
    ]
}

/// Which of our algorithms the token really does. The mechanism list does not name curves, so each
/// is tried once with a session key, which leaves nothing on the token.
fn offered_algorithms(context: &Pkcs11, slot: Slot, session: &Session) -> Result<Vec<Algorithm>, Error> {
    let mechanisms: Vec<MechanismType> = context.get_mechanism_list(slot)?;
    let offers = |algorithm: &Algorithm| {
        if !mechanisms.contains(&mechanism::allowed(*algorithm)) {
            return false;
        }
        let [public, private] = session_pair(*algorithm);
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
