//! `sign-test`

use serde_json::{Value, json};

use super::{failure::Failure, paint::Tone, session::Session, value::text};

pub(super) fn run(session: &Session) -> Result<(), Failure> {
    let answer = session.post("/api/v1/sign/test", &json!({}))?;
    session.show(&answer, |tested: &Value| {
        let (key, algorithm) = (text(tested, "/key_id"), text(tested, "/algorithm"));
        anstream::println!(
            "{}  {key} ({algorithm}) signed in the token, and the signature verifies",
            Tone::Good.paint("ok")
        );
    });
    Ok(())
}
