//! The module, the token, the PIN and what the token offers.

use super::{
    super::block_on,
    finding::Finding,
    standby::{self, Wanted},
};
use crate::{
    config::Config,
    key::Algorithm,
    token::{self, Error, PinDesk, PinSource, Seen, Token, explain},
};

/// `runs`: an appliance is, or may be, logged in to this token already. `wanted`: the keys that a standby is
/// to have.
pub(super) fn look(config: &Config, runs: bool, wanted: Option<&Wanted>) -> Vec<Finding> {
    let (pin_source, pin) = pin_source(config);
    let pin = pin.map(|pin| if wanted.is_some() { pin.of_standby(config.token.place()) } else { pin });
    let mut findings = vec![pin_source];
    let look = match token::look(&config.token) {
        Ok(look) => look,
        Err(error) => {
            findings.push(failed("module", &error));
            return findings;
        }
    };
    findings.push(Finding::ok("module", format!("{}: {}", config.token.module.display(), look.library)));
    match look.token {
        Err(error) => findings.push(failed("token", &error)),
        Ok(seen) => {
            findings.push(identity(&seen));
            findings.extend(offers(config, &seen, pin.filter(|_| !runs), runs, wanted));
            findings.push(sessions(config.token.workers, &seen));
            findings.push(room(&seen));
        }
    }
    findings
}

fn pin_source(config: &Config) -> (Finding, Option<PinDesk>) {
    let source = match config.token.pin_source() {
        Ok(source) => source,
        Err(error) => return (Finding::fail("pin-source", error, "name one of them"), None),
    };
    // A credential's name may be the PIN itself, put in the wrong place.
    let named = match &source {
        PinSource::File(path) => path.display().to_string(),
        PinSource::Credential(_) => "a systemd credential".into(),
    };
    let desk = PinDesk::new(source, &config.state.directory);
    match desk.look() {
        Ok(()) => (Finding::ok("pin-source", format!("{named}: readable, and by nobody else")), Some(desk)),
        Err(error) => {
            let remedy =
                "one line, the PIN, in a file of the service's user with mode 0400; or LoadCredential= in the unit";
            (Finding::fail("pin-source", error.to_string(), remedy), None)
        }
    }
}

fn identity(seen: &Seen) -> Finding {
    let token = &seen.identity;
    let found = format!("{} ({} {})", token.uri(), token.manufacturer, token.model);
    if seen.write_protected {
        let remedy = "lift the protection: keys are made on it, and the ledger is kept there";
        return Finding::fail("token", format!("{found}: write-protected"), remedy);
    }
    Finding::ok("token", found)
}

/// The PIN, and which algorithms there are. Whether a PIN is right only a try shows, and a wrong try
/// counts: so none is made where one failed before, or where an appliance has shown it already.
fn offers(config: &Config, seen: &Seen, pin: Option<PinDesk>, runs: bool, wanted: Option<&Wanted>) -> Vec<Finding> {
    let listed = |note: &str| mechanisms(config, &seen.algorithms, note);
    if let Some(problem) = seen.pin_problem {
        let pin = Finding::fail("pin", format!("{problem}; not tried"), explain::pin(problem));
        return vec![pin, listed("by its list")];
    }
    if seen.pin_was_wrong {
        let found = "a wrong PIN was tried since the last good login; not tried here";
        let remedy =
            "see that the PIN source is right; `pkcs11-tool --login --list-objects` proves it, and takes the mark away";
        return vec![Finding::warn("pin", found, remedy), listed("by its list")];
    }
    if runs {
        return vec![Finding::ok("pin", "left to the running appliance; not tried"), listed("by its list")];
    }
    let Some(pin) = pin else {
        return vec![Finding::warn("pin", "not tried: it cannot be read", "see pin-source"), listed("by its list")];
    };
    // In this process, which ends with the answer.
    let mut here = config.token.clone();
    here.isolation = false;
    match Token::open(&here, pin) {
        Ok(token) => {
            let mut found = vec![Finding::ok("pin", "accepted"), mechanisms(config, token.algorithms(), "tried out")];
            found.extend(wanted.map(|wanted| block_on(standby::keys(&token, wanted))));
            found
        }
        Err(error) => vec![failed("pin", &error), listed("by its list")],
    }
}

fn mechanisms(config: &Config, algorithms: &[Algorithm], note: &str) -> Finding {
    let names = algorithms.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>().join(", ");
    let wanted = config.key_policy.algorithm;
    if algorithms.contains(&wanted) {
        return Finding::ok("mechanisms", format!("{names} ({note})"));
    }
    let found = if names.is_empty() { "none of ours".into() } else { names };
    Finding::fail(
        "mechanisms",
        format!("{found} ({note}), and not {wanted} (key_policy.algorithm)"),
        "choose one that the token offers; where it has no session keys, name what it offers in token.algorithms",
    )
}

fn sessions(workers: usize, seen: &Seen) -> Finding {
    let wanted = seen.wanted_sessions;
    match seen.most_sessions {
        None => Finding::ok("sessions", format!("{wanted} wanted; the token tells no limit")),
        Some(most) if most >= wanted => Finding::ok("sessions", format!("{wanted} wanted, {most} allowed")),
        Some(most) => Finding::warn(
            "sessions",
            format!("{wanted} wanted for {workers} workers, {most} allowed: there will be fewer workers"),
            "lower token.workers, or have the HSM's administrator raise the limit",
        ),
    }
}

fn room(seen: &Seen) -> Finding {
    match seen.room {
        None => Finding::ok("room", "the token does not tell how much is free"),
        Some((free, total)) if free < total / 10 => Finding::warn(
            "room",
            format!("{free} of {total} bytes free"),
            "destroy the private keys of retired keys (POST /api/v1/keys/ID/destroy) before the next rotation",
        ),
        Some((free, total)) => Finding::ok("room", format!("{free} of {total} bytes free")),
    }
}

fn failed(check: &'static str, error: &Error) -> Finding {
    let remedy = match error {
        Error::Module { .. } => {
            "install the module's package, or correct token.module; `ldd FILE` shows which library it misses"
        }
        Error::Initialize { .. } => {
            "start what the module talks to, and give the service the environment that the profile in hsm-config names"
        }
        Error::NoToken { .. } => {
            "put the label and serial of the right token into token.uri; `pkcs11-tool -L` lists them"
        }
        Error::AmbiguousToken { .. } => "put the serial into token.uri",
        Error::Pin(problem) => explain::pin(*problem),
        Error::Worker(_)
        | Error::KeyMissing { .. }
        | Error::KeyPolicy(_)
        | Error::Sandbox(_)
        | Error::Busy
        | Error::Deadline(_)
        | Error::Unanswered
        | Error::BadSignature
        | Error::Lost(_)
        | Error::PinSource(_)
        | Error::Login(_)
        | Error::Call(_) => {
            "`verification-signer doctor --token CKR_...` explains the code; so does the module's own log"
        }
    };
    Finding::fail(check, error.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::doctor::finding::Verdict, token::TokenIdentity};

    fn seen() -> Seen {
        let text = || "x".to_owned();
        Seen {
            identity: TokenIdentity { label: text(), serial: text(), manufacturer: text(), model: text() },
            pin_problem: None,
            pin_was_wrong: false,
            write_protected: false,
            most_sessions: None,
            wanted_sessions: 7,
            room: None,
            algorithms: Vec::new(),
        }
    }

    #[test]
    fn too_few_sessions_are_told() {
        for (most, verdict) in [(None, Verdict::Ok), (Some(7), Verdict::Ok), (Some(6), Verdict::Warn)] {
            assert_eq!(sessions(2, &Seen { most_sessions: most, ..seen() }).verdict, verdict, "{most:?}");
        }
    }

    #[test]
    fn a_token_that_is_nearly_full_is_told() {
        for (free, verdict) in [(10, Verdict::Ok), (9, Verdict::Warn), (0, Verdict::Warn)] {
            assert_eq!(room(&Seen { room: Some((free, 100)), ..seen() }).verdict, verdict, "{free}");
        }
    }

    #[test]
    fn a_token_that_takes_nothing_new_fails() {
        assert_eq!(identity(&seen()).verdict, Verdict::Ok);
        assert_eq!(identity(&Seen { write_protected: true, ..seen() }).verdict, Verdict::Fail);
    }
}
