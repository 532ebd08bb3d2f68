//! `hold-token`: the process that holds the PKCS#11 module. Not for people: `serve` starts it.

use super::refused;
use crate::{exit_code::ExitCode, supervisor::Signals, token::isolation::child};

pub(super) fn run() -> Result<ExitCode, ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| refused(&error, ExitCode::Unavailable))?;
    runtime.block_on(async {
        // They are meant for the appliance: it still needs the token when all of a control group are
        // told to end, and `kill -USR1 $(pidof verification-signer)` tells this process as well.
        let _unheeded = Signals::take().map_err(|error| refused(&error, ExitCode::Unavailable))?;
        child::run().map(|()| ExitCode::Success).map_err(|error| {
            refused(&format!("this is started by `serve`, and by nobody else: {error}"), ExitCode::Usage)
        })
    })
}
