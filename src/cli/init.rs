//! `init`: the first key, made on purpose.

use super::{block_on, refused};
use crate::{
    app::{App, StartError},
    clock::Clock,
    config::Config,
    exit_code::ExitCode,
    service::first_key::Asker,
};

pub(super) fn run(config: &Config) -> Result<ExitCode, ExitCode> {
    block_on(async {
        let app = App::build(config, &Asker::Person { command: "init" }, Clock::system()).await?;
        let standing = app.service.keyring.standing();
        match standing.active() {
            Some(key) => println!(
                "active key {} ({}), fingerprint {}, expires {}",
                key.id,
                key.algorithm(),
                key.public_key.fingerprint(),
                key.not_after
            ),
            None => println!("the ledger has keys, but none is active"),
        }
        Ok(app.service.token.close()?)
    })
    .map(|()| ExitCode::Success)
    .map_err(|error: StartError| refused(&error, error.exit_code()))
}
