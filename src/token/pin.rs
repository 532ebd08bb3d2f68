//! The PIN: read when a token that is there wants it, never kept, and never tried again on a token that
//! has refused it, whatever process tries.
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
    /// The PIN for this token, unless it must not be tried.
    fn pin(&self, token: &TokenIdentity) -> Result<SecretString, Error>;

    /// The token has refused it.
    fn refused(&self, refused: RefusedPin);
}

/// A PIN that a token refused, without the PIN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefusedPin {
    token_serial: String,
    /// Which standby it was: a copy of a token may have its serial, and a PIN of its own.
    // Never left out when it is written: the frames between processes have no names.
    #[serde(default)]
    place: Option<String>,
    salt: [u8; 16],
    hash: [u8; 32],
}

/// What OWASP asks of PBKDF2-HMAC-SHA256: a PIN is short, and whoever has the file can try them all.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("not zero");

impl RefusedPin {
    pub fn of(token: &TokenIdentity, pin: &SecretString) -> Self {
        let (mut salt, mut hash) = ([0; 16], [0; 32]);
        // Without random numbers, without a salt: still slow to search.
        let _ = getrandom::fill(&mut salt);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, pin.expose_secret().as_bytes(), &mut hash);
        Self { token_serial: token.serial.clone(), place: None, salt, hash }
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
    fn pin(&self, token: &TokenIdentity) -> Result<SecretString, Error> {
        let pin = self.source.read().map_err(|error| Error::PinSource(error.to_string()))?;
        let known = self.latched()?;
        if known.iter().any(|refused| self.is_of(refused, &token.serial) && refused.is(&pin)) {
            return Err(Error::Pin(PinProblem::Refused));
        }
        Ok(pin)
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
        let pin = wrong.pin(&token("1")).unwrap();
        wrong.refused(RefusedPin::of(&token("1"), &pin));
        let is_latched =
            |desk: &PinDesk, serial| matches!(desk.pin(&token(serial)), Err(Error::Pin(PinProblem::Refused)));
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
        let pin = copy.pin(&token("1")).unwrap();
        copy.refused(RefusedPin::of(&token("1"), &pin));
        assert!(matches!(copy.pin(&token("1")), Err(Error::Pin(PinProblem::Refused))));
        assert!(primary.pin(&token("1")).is_ok());
        primary.accepted(&token("1"));
        assert!(copy.pin(&token("1")).is_err(), "the original's login says nothing of the copy's PIN");
        copy.accepted(&token("1"));
        assert!(copy.pin(&token("1")).is_ok());
    }

    #[test]
    fn a_latch_that_cannot_be_read_lets_no_pin_through() {
        let directory = tempfile::tempdir().unwrap();
        let desk = desk(directory.path(), "some-pin");
        durable::private_directory(&directory.path().join("state")).unwrap();
        std::fs::write(directory.path().join("state/pin-refused.json"), "torn").unwrap();
        assert!(matches!(desk.pin(&token("1")), Err(Error::PinSource(_))));
    }
}
