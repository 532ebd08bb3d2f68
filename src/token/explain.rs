//! A CKR code in plain words: what it says, what this program does about it, and what is left to do.

use cryptoki::error::{Rv, RvError};

use super::{
    PinProblem,
    error::{Remedy, ckr_name, remedy},
};

/// The codes that PKCS#11 gives numbers to, short of the vendors' own (v3.2 §5.1).
const STANDARD: std::ops::RangeInclusive<u64> = 0x1..=0x300;

/// Where the vendors' own codes begin.
const VENDOR: u64 = 0x8000_0000;

/// What a code means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// `CKR_…` as the standard writes it.
    pub name: String,
    pub value: u64,
    pub cause: String,
    pub handled: &'static str,
    pub remedy: String,
}

/// Explains a code that is given by its name, or its number (0xa4 or 164). `None` for what is no code.
#[must_use]
pub fn explain(text: &str) -> Option<Explanation> {
    let value = number(text).or_else(|| named(text))?;
    let Rv::Error(code) = Rv::from(value) else { return None };
    let (handled, advice) = advice(remedy(code));
    Some(Explanation { name: name(code), value, cause: cause(code), handled, remedy: advice })
}

fn number(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    hexadecimal.map_or_else(|| text.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok())
}

fn named(text: &str) -> Option<u64> {
    let wanted = text.to_ascii_uppercase();
    STANDARD.into_iter().find(|value| match Rv::from(*value) {
        Rv::Ok | Rv::Error(RvError::UnknownErrorCode(_) | RvError::VendorDefined(_)) => false,
        Rv::Error(code) => [name(code).as_str(), name(code).trim_start_matches("CKR_")].contains(&wanted.as_str()),
    })
}

fn name(code: RvError) -> String {
    match code {
        RvError::UnknownErrorCode(value) => format!("{value:#x}"),
        RvError::VendorDefined(value) => format!("CKR_VENDOR_DEFINED | {:#x}", value & !VENDOR),
        known => ckr_name(known),
    }
}

/// The first sentence of what the standard says.
fn cause(code: RvError) -> String {
    match code {
        RvError::UnknownErrorCode(_) => "A code that this program has no words for.".into(),
        RvError::VendorDefined(_) => "The vendor's own code: the module's manual or header file explains it.".into(),
        known => {
            let text = known.to_string();
            let first = text.trim().split_once(". ").map_or(text.trim(), |(first, _)| first);
            format!("{}.", first.trim_end_matches('.'))
        }
    }
}

/// What we do, and what is left to whoever runs us.
fn advice(remedy: Remedy) -> (&'static str, String) {
    match remedy {
        Remedy::FreshSession => (
            "the call is made once more in a fresh session with its objects looked for anew, then over a connection made anew",
            "nothing, if it is rare; else look into the module's own log, and whether other processes change the token".into(),
        ),
        Remedy::Reopen => (
            "the module is finalized and initialized again, once for all workers, with pauses that grow",
            "see that the HSM, the network to it and the module's daemon are up, and that this user may reach them; \
             `verification-signer doctor --config FILE` says what is missing"
                .into(),
        ),
        Remedy::Later => (
            "the caller gets 503 with Retry-After; nothing is torn down",
            "free sessions or room on the token: fewer token.workers, fewer other applications, keys destroyed that \
             are not needed any more"
                .into(),
        ),
        Remedy::Configuration => (
            "the call is refused, and a start ends with 78: the same call gets the same answer until somebody changes the \
             configuration or the token",
            "compare the configuration with the module's profile in hsm-config: mechanisms, login rules, token.omit".into(),
        ),
        Remedy::Pin(problem) => ("no PIN is tried again before the process is started again", pin(problem).into()),
        Remedy::Refusal => (
            "the request is refused, and not repeated: the same call would get the same answer",
            "see which call failed; when it generates a key, the module's profile in hsm-config says what to leave out \
             (token.omit)"
                .into(),
        ),
    }
}

/// What to do about the PIN.
#[must_use]
pub fn pin(problem: PinProblem) -> &'static str {
    match problem {
        PinProblem::Incorrect => {
            "correct the file or credential that token.pin_file or token.pin_credential names, prove the PIN with another tool, then start again"
        }
        PinProblem::Refused => {
            "put the right PIN into the file or credential that token.pin_file or token.pin_credential names, then start again; pin-refused.json in the state directory remembers the wrong one"
        }
        PinProblem::Unanswered => {
            "prove the PIN with another tool (OpenSC: pkcs11-tool --login), correct it if it is wrong, remove pin-refused.json from the state directory, then start again; a module that ends in C_Login is a case for its vendor"
        }
        PinProblem::Locked => {
            "the security officer unlocks it (C_InitPIN; with OpenSC: pkcs11-tool --login --login-type so --init-pin), then start again with the right PIN"
        }
        PinProblem::FinalTry => {
            "prove the PIN with another tool, which takes the warning away; a wrong one locks the token"
        }
        PinProblem::MustBeChanged => {
            "change it with the vendor's tool (C_SetPIN), and put the new one where token.pin_file says"
        }
        PinProblem::NotInitialised => "the security officer sets it (C_InitPIN)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_by_name_and_by_number() {
        let locked = explain("CKR_PIN_LOCKED").unwrap();
        assert_eq!((locked.name.as_str(), locked.value), ("CKR_PIN_LOCKED", 0xa4));
        assert!(locked.cause.contains("locked") && locked.remedy.contains("security officer"), "{locked:?}");
        for other in ["pin_locked", "0xa4", "0XA4", "164"] {
            assert_eq!(explain(other).as_ref(), Some(&locked), "{other}");
        }
        assert_eq!(explain("CKR_OK"), None);
        assert_eq!(explain("0"), None);
        assert_eq!(explain("CKR_NO_SUCH_CODE"), None);
    }

    #[test]
    fn every_standard_code_has_words_and_is_found_by_its_own_name() {
        let mut known = 0;
        for value in STANDARD {
            let explanation = explain(&value.to_string()).unwrap();
            assert!(explanation.cause.len() > 10 && explanation.remedy.len() > 10, "{explanation:?}");
            if explanation.name.starts_with("CKR_") {
                known += 1;
                assert_eq!(explain(&explanation.name), Some(explanation));
            }
        }
        assert!(known > 80, "{known}");
    }

    #[test]
    fn a_vendors_own_code_is_said_to_be_one() {
        let own = explain("0x80000015").unwrap();
        assert_eq!(own.name, "CKR_VENDOR_DEFINED | 0x15");
    }
}
