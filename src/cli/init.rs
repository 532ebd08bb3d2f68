//! `init`: the first key, made on purpose.

use super::{block_on, refused};
use crate::{
    app::{App, Opened, StartError},
    clock::Clock,
    config::Config,
    exit_code::ExitCode,
    service::first_key::Asker,
};

pub(super) fn run(config: &Config) -> Result<ExitCode, ExitCode> {
    block_on(async {
        let had_keys = !Opened::open(config).await?.standing.is_empty();
        let app = App::build(config, &Asker::Person { command: "init" }, Clock::system()).await?;
        let standing = app.service.keyring.standing();
        let code = match standing.active(&crate::key::Line::Signer) {
            Some(key) => {
                println!(
                    "{}active key {} ({}), fingerprint {}, expires {}",
                    if had_keys { "nothing to do: " } else { "" },
                    key.id,
                    key.algorithm(),
                    key.public_key.fingerprint(),
                    key.not_after
                );
                ExitCode::Success
            }
            None => {
                let keys = standing.keys().count();
                println!(
                    "nothing was made: the ledger has {keys} key(s), none of them active; start `serve` and rotate"
                );
                ExitCode::Config
            }
        };
        app.service.checkpoint().await?;
        app.service.token.close()?;
        Ok(code)
    })
    .map_err(|error: StartError| refused(&error, error.exit_code()))
}
