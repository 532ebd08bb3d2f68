//! The PIN: read when a token that is there wants it, never kept, and never tried again on a token that
//! has refused it, whatever process tries. A login that nobody heard the end of, because the process of the
//! module ended in it, says nothing about the PIN; but a wrong one would lock the token after a few of them.
//! So it is tried once more at most, unless the token has taken it before, and not at all when the token says
//! that it was given a wrong one.
//!
//! The latch is a file in the state directory. It names the token by its serial and holds a salted, slow
//! hash of the PIN: the right PIN releases it, a restart does not.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use ring::pbkdf2;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Error, PinProblem, PinSource, TokenIdentity};
use crate::{durable, secret::SecretError};

/// Who gives the PIN to whoever logs in.
pub(super) trait GivesPin: Send + Sync {
    /// The PIN for this token, unless it must not be tried. `after_wrong`: the token says that a wrong one
    /// was tried since its last good login.
    fn pin(&self, token: &TokenIdentity, after_wrong: bool) -> Result<SecretString, Error>;

    /// The token has answered the login, and `taken` the PIN or not.
    fn answered(&self, token: &TokenIdentity, taken: bool);

    /// The token has refused it.
    fn refused(&self, refused: RefusedPin);
}

/// A PIN that a token refused, or did not answer, without the PIN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefusedPin {
    token_serial: String,
    /// Which standby it was: a copy of a token may have its serial, and a PIN of its own.
    // Never left out when it is written: the frames between processes have no names.
    #[serde(default)]
    place: Option<String>,
    salt: [u8; 16],
    hash: [u8; 32],
    /// Logins with it that were not answered; none when the token said that it is wrong.
    #[serde(default)]
    unanswered: u8,
}

/// So many logins with a PIN that the token never took may be without an answer: fewer than lock any.
const UNANSWERED: u8 = 2;

/// What OWASP asks of PBKDF2-HMAC-SHA256: a PIN is short, and whoever has the file can try them all.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("not zero");

impl RefusedPin {
    pub fn of(token: &TokenIdentity, pin: &SecretString) -> Self {
        let (mut salt, mut hash) = ([0; 16], [0; 32]);
        // Without random numbers, without a salt: still slow to search.
        let _ = getrandom::fill(&mut salt);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, pin.expose_secret().as_bytes(), &mut hash);
        Self { token_serial: token.serial.clone(), place: None, salt, hash, unanswered: 0 }
    }

    /// Why it must not be tried, if it must not.
    fn problem(&self, after_wrong: bool) -> Option<PinProblem> {
        match self.unanswered {
            0 => Some(PinProblem::Refused),
            count => (after_wrong || count >= UNANSWERED).then_some(PinProblem::Unanswered),
        }
    }

    fn is(&self, pin: &SecretString) -> bool {
        let pin = pin.expose_secret().as_bytes();
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &self.salt, pin, &self.hash).is_ok()
    }
}

/// Where the PIN comes from, and what is remembered of those that were refused.
#[derive(Clone, Debug)]
pub struct PinDesk {
    source: PinSource,
    latch: PathBuf,
    place: Option<String>,
}

/// Held while the latch is changed: a primary and its standbys have one file.
static CHANGING: Mutex<()> = Mutex::new(());

impl PinDesk {
    /// The PIN of this source; refused ones are remembered in the state directory.
    #[must_use]
    pub fn new(source: PinSource, state_directory: &Path) -> Self {
        Self { source, latch: state_directory.join("pin-refused.json"), place: None }
    }

    /// The same desk for a standby: what another token refused is no affair of its, whatever serial it has.
    #[must_use]
    pub fn of_standby(self, place: String) -> Self {
        Self { place: Some(place), ..self }
    }

    fn is_of(&self, refused: &RefusedPin, token_serial: &str) -> bool {
        refused.token_serial == token_serial && refused.place == self.place
    }

    /// Whether there is a PIN that may be read. It is wiped at once.
    pub fn look(&self) -> Result<(), SecretError> {
        self.source.read().map(drop)
    }

    /// The token has taken a PIN: what it refused before is history.
    pub(super) fn accepted(&self, token: &TokenIdentity) {
        let _changing = CHANGING.lock();
        let Ok(mut latched) = self.latched() else { return };
        let before = latched.len();
        latched.retain(|one| !self.is_of(one, &token.serial));
        if latched.len() < before {
            self.write(&latched);
        }
    }

    /// The module ended in a login. A PIN that was `proven` by a login before is doubted only when the token
    /// says that it was given a wrong one.
    pub(super) fn unanswered(&self, token: &TokenIdentity, proven: bool) {
        let Ok(pin) = self.source.read() else { return };
        let _changing = CHANGING.lock();
        let Ok(mut latched) = self.latched() else { return };
        let before = latched.iter().find(|one| self.is_of(one, &token.serial) && one.is(&pin));
        let count = before.map_or(0, |one| one.unanswered);
        if before.is_some_and(|one| one.unanswered == 0) {
            return;
        }
        let unanswered = if proven { 1 } else { count.saturating_add(1) };
        tracing::warn!(unanswered, "the process that holds the token ended in a login");
        latched.retain(|one| !self.is_of(one, &token.serial));
        latched.push(RefusedPin { place: self.place.clone(), unanswered, ..RefusedPin::of(token, &pin) });
        self.write(&latched);
    }

    fn latched(&self) -> Result<Vec<RefusedPin>, Error> {
        if !self.latch.exists() {
            return Ok(Vec::new());
        }
        let unreadable = |why: String| Error::PinSource(format!("{} cannot be read: {why}", self.latch.display()));
        let text = std::fs::read(&self.latch).map_err(|error| unreadable(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))
    }

    fn write(&self, latched: &[RefusedPin]) {
        let bytes = serde_json::to_vec(latched).expect("numbers and text");
        let directory = self.latch.parent().expect("a file in the state directory");
        let written = if directory.is_dir() { Ok(()) } else { durable::private_directory(directory) }
            .and_then(|()| durable::replace(&self.latch, &bytes));
        if let Err(error) = written {
            tracing::error!(path = %self.latch.display(), %error, "it could not be written down which PIN was refused: do not start again before it is corrected");
        }
    }
}

impl GivesPin for PinDesk {
    fn pin(&self, token: &TokenIdentity, after_wrong: bool) -> Result<SecretString, Error> {
        let pin = self.source.read().map_err(|error| Error::PinSource(error.to_string()))?;
        let known = self.latched()?;
        let mut same = known.iter().filter(|one| self.is_of(one, &token.serial) && one.is(&pin));
        match same.find_map(|one| one.problem(after_wrong)) {
            Some(problem) => Err(Error::Pin(problem)),
            None => Ok(pin),
        }
    }

    fn answered(&self, token: &TokenIdentity, taken: bool) {
        if taken {
            self.accepted(token);
        }
    }

    fn refused(&self, refused: RefusedPin) {
        // One for each token: the last.
        let _changing = CHANGING.lock();
        let mut latched = self.latched().unwrap_or_default();
        latched.retain(|one| !self.is_of(one, &refused.token_serial));
        latched.push(RefusedPin { place: self.place.clone(), ..refused });
        self.write(&latched);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret;

    fn token(serial: &str) -> TokenIdentity {
        let text = String::new();
        TokenIdentity { label: "t".into(), serial: serial.into(), manufacturer: text.clone(), model: text }
    }

    fn desk(directory: &Path, pin: &str) -> PinDesk {
        let path = directory.join("pin");
        secret::to_file(&path, &SecretString::from(pin)).unwrap();
        PinDesk::new(PinSource::File(path), &directory.join("state"))
    }

    #[test]
    fn a_refused_pin_is_not_given_again_to_that_token_and_another_pin_is() {
        let directory = tempfile::tempdir().unwrap();
        let wrong = desk(directory.path(), "wrong-pin");
        let pin = wrong.pin(&token("1"), false).unwrap();
        wrong.refused(RefusedPin::of(&token("1"), &pin));
        let is_latched =
            |desk: &PinDesk, serial| matches!(desk.pin(&token(serial), false), Err(Error::Pin(PinProblem::Refused)));
        assert!(is_latched(&wrong, "1"));
        assert!(!is_latched(&wrong, "2"), "another token may have it");
        let right = desk(directory.path(), "right-pin");
        assert!(!is_latched(&right, "1"));
        let file = std::fs::read_to_string(directory.path().join("state/pin-refused.json")).unwrap();
        assert!(!file.contains("wrong") && !file.contains(&hex::encode("wrong-pin")));
        right.accepted(&token("1"));
        assert!(!is_latched(&desk(directory.path(), "wrong-pin"), "1"), "the token's PIN may be this one by now");
    }

    #[test]
    fn what_a_copy_of_the_token_refused_is_no_affair_of_the_original_s() {
        let directory = tempfile::tempdir().unwrap();
        let primary = desk(directory.path(), "right-pin");
        let copy = primary.clone().of_standby("somewhere".into());
        let pin = copy.pin(&token("1"), false).unwrap();
        copy.refused(RefusedPin::of(&token("1"), &pin));
        assert!(matches!(copy.pin(&token("1"), false), Err(Error::Pin(PinProblem::Refused))));
        assert!(primary.pin(&token("1"), false).is_ok());
        primary.accepted(&token("1"));
        assert!(copy.pin(&token("1"), false).is_err(), "the original's login says nothing of the copy's PIN");
        copy.accepted(&token("1"));
        assert!(copy.pin(&token("1"), false).is_ok());
    }

    #[test]
    fn a_login_without_an_answer_is_made_once_more_and_not_after_the_token_has_counted_it() {
        let directory = tempfile::tempdir().unwrap();
        let desk = desk(directory.path(), "some-pin");
        let is_doubted =
            |after_wrong| matches!(desk.pin(&token("1"), after_wrong), Err(Error::Pin(PinProblem::Unanswered)));
        assert!(!is_doubted(true), "whoever tried a wrong one, it was not this");
        desk.unanswered(&token("1"), false);
        assert!(!is_doubted(false) && is_doubted(true));
        desk.answered(&token("1"), true);
        assert!(!is_doubted(true), "it was right");
        // The token has taken it before: whatever ends the module says nothing against it.
        (0..9).for_each(|_| desk.unanswered(&token("1"), true));
        assert!(!is_doubted(false) && is_doubted(true));
        desk.unanswered(&token("1"), false);
        assert!(is_doubted(false), "nobody knows of a login that succeeded");
        desk.refused(RefusedPin::of(&token("1"), &"some-pin".into()));
        desk.unanswered(&token("1"), true);
        assert!(matches!(desk.pin(&token("1"), false), Err(Error::Pin(PinProblem::Refused))), "refused is refused");
    }

    #[test]
    fn a_latch_that_cannot_be_read_lets_no_pin_through() {
        let directory = tempfile::tempdir().unwrap();
        let desk = desk(directory.path(), "some-pin");
        durable::private_directory(&directory.path().join("state")).unwrap();
        std::fs::write(directory.path().join("state/pin-refused.json"), "torn").unwrap();
        assert!(matches!(desk.pin(&token("1"), false), Err(Error::PinSource(_))));
    }
}
