//! `serve`: the appliance.

use super::{block_on, refused};
use crate::{
    app::{App, StartError},
    clock::Clock,
    config::Config,
    exit_code::ExitCode,
    service::first_key::Asker,
    supervisor::Signals,
};

pub(super) fn run(config: &Config) -> Result<ExitCode, ExitCode> {
    let asker = Asker::Configuration { allowed_serial: config.key_policy.first_key_on_token_serial.clone() };
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    block_on(async {
        config.check_files().map_err(StartError::Config)?;
        let signals = Signals::take().map_err(StartError::Signals)?;
        let app = App::build(config, &asker, Clock::system()).await?;
        app.run_until_stopped(config, signals, |api, metrics| tracing::info!(%api, %metrics, "ready")).await
    })
    .map_err(|error: StartError| refused(&error, error.exit_code()))
}
