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
        let mut code = match standing.active(app.service.tokens.line()) {
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
        for (name, line) in app.service.tokens.homes().skip(1) {
            match standing.active(line) {
                Some(key) => println!("{name}: active key {} ({}), on {line}", key.id, key.algorithm()),
                None if standing.was_active(line) => println!("{name}: nothing was made: none of its keys is active"),
                None => {
                    println!("{name}: its first key was not made: see the log, and run init again");
                    code = ExitCode::Unavailable;
                }
            }
        }
        app.service.checkpoint().await?;
        app.service.tokens.close();
        app.service.token.close()?;
        Ok(code)
    })
    .map_err(|error: StartError| refused(&error, error.exit_code()))
}
