//! Tests that call PKCS#11 themselves. SoftHSM2 reads its configuration from the environment once
//! in a process, so every such test runs its calls in a process of its own: this test binary again,
//! with that one test only.

use std::{path::Path, process::Command};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    session::{Session, UserType},
};

use super::{
    softhsm::{MODULE, PIN, SoftHsm},
    tool,
};

/// Names the token to the inner process, and is how it knows that it is the inner one.
const TOKEN: &str = "TEST_TOKEN_LABEL";

/// Runs `calls` with a logged-in session on the token that `prepare` makes. `test` is the full name of
/// the calling test. `prepare` runs in the outer process only, `calls` in the inner one only.
pub fn on_token(test: &str, prepare: impl FnOnce() -> SoftHsm, calls: impl FnOnce(&Session)) {
    if let Ok(label) = std::env::var(TOKEN) {
        calls(&session(&label));
        return;
    }
    let token = prepare();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(TOKEN, &token.label)
        .env("SOFTHSM2_CONF", token.conf())
        .output()
        .unwrap();
    let text = tool::text(&output.stdout) + &tool::text(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{test} in its own process: {text}");
}

fn session(label: &str) -> Session {
    let module = Pkcs11::new(Path::new(MODULE)).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let wanted = |slot: &cryptoki::slot::Slot| module.get_token_info(*slot).unwrap().label().trim_end() == label;
    let slot = module.get_slots_with_token().unwrap().into_iter().find(wanted).unwrap();
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&PIN.into())).unwrap();
    session
}
