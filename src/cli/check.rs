//! `check`: everything `serve` would refuse, without serving or writing anything.

use super::{block_on, refused};
use crate::{
    app::{Opened, StartError},
    authn::Authn,
    config::Config,
    exit_code::ExitCode,
    service::first_key::Asker,
};

pub(super) fn run(config: &Config) -> Result<ExitCode, ExitCode> {
    block_on(async {
        config.check_files().map_err(StartError::Config)?;
        Authn::open(config.auth.as_ref())?;
        let opened = Opened::open(config).await?;
        let identity = opened.token.identity().clone();
        println!("configuration  ok");
        for warning in config.warnings() {
            println!("warning        {warning}");
        }
        println!("token          {} ({} {}), logged in", identity.uri(), identity.manufacturer, identity.model);
        let algorithms: Vec<_> = opened.token.algorithms().iter().map(|algorithm| algorithm.as_str()).collect();
        println!("algorithms     {}", algorithms.join(", "));
        println!(
            "ledger         {} record(s), {} key(s)",
            opened.standing.last_sequence(),
            opened.standing.keys().count()
        );
        for lost in opened.standing.superseded() {
            println!("warning        ledger record {:?} lost a race and does not count", lost.label);
        }
        match opened.active_key() {
            Some(key) => {
                opened.check_active_key().await?;
                println!("active key     {} ({}), signs, expires {}", key.id, key.algorithm(), key.not_after);
            }
            None if opened.standing.is_empty() => {
                let allowed_serial = config.key_policy.first_key_on_token_serial.clone();
                opened.permit_first_key(&Asker::Configuration { allowed_serial }, config).await?;
                println!("active key     none yet: `serve` will make the first one on this token");
            }
            None => {
                println!("active key     none: nothing can be signed until POST /api/v1/keys/rotate makes a new one");
            }
        }
        for standby in opened.check_standbys(config).await? {
            println!("{standby}");
        }
        let records = opened.check_trail(config).await?;
        println!("audit trail    {records} record(s) in {}", config.audit.directory.display());
        opened.token.close()?;
        Ok(())
    })
    .map(|()| ExitCode::Success)
    // Whatever `serve` would refuse is for somebody to correct before it is started.
    .map_err(|error: StartError| refused(&error, ExitCode::Config))
}
