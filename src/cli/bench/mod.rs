//! `bench`: what this machine and its token do, in one run. First the bare token, then the appliance around
//! it, layer by layer: each is measured as its clients see it.

mod figures;
mod load;
mod place;
mod report;

use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use self::{
    figures::{Figures, best_rate, cpu},
    load::{Job, Load},
    place::Place,
    report::Report,
};
use super::{
    ConfigFile, block_on,
    operator::{self, Consent},
    refused,
};
use crate::{
    config::Config,
    exit_code::ExitCode,
    token::{self, PinDesk, TokenIdentity, bare::Bare},
};

/// Workers of the bare token, and connections of clients.
const WORKERS: [usize; 4] = [1, 2, 4, 8];
const CLIENTS: [usize; 5] = [1, 4, 16, 32, 64];

/// Measurements in all: the bare token, the layers, everything.
const STEPS: u64 = (WORKERS.len() + 3 + CLIENTS.len()) as u64;

/// Clients of the layers: enough to keep a token busy.
const USUAL: usize = 16;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// How long each measurement takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// What was measured, as JSON.
    #[arg(long)]
    json: bool,
    /// Draws latency against load, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Where its files lie meanwhile [default: beside the audit directory, on the same disk]
    #[arg(long, value_name = "DIR")]
    place: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Token(#[from] token::Error),
    #[error(transparent)]
    Pin(#[from] crate::secret::SecretError),
    #[error("{path}: {source}; another directory: --place DIR")]
    Place { path: PathBuf, source: io::Error },
    #[error("the configuration cannot be used for a measurement")]
    Name,
    #[error("the appliance that is measured did not start: {said}")]
    NotServed { said: String },
    #[error("a request failed: {0}")]
    Asked(String),
    #[error("the picture cannot be drawn: {0}")]
    Plot(String),
}

pub(super) fn run(options: &Options) -> Result<ExitCode, ExitCode> {
    let config = Config::load(&options.file.config).map_err(|error| refused(&error, ExitCode::Config))?;
    let about = format!(
        "This loads the token {} to its limit for about {} seconds. It makes a signing key and an audit key there as {}, \
         and destroys every key of that name before and after. Best while nothing else uses the token.",
        config.token.uri,
        options.seconds * STEPS,
        place::signer(&config.signer.id).map_err(|failure| refused(&failure, ExitCode::Config))?
    );
    operator::ask(&options.consent, "bench", &about)?;
    let source = config.token.pin_source().map_err(|error| refused(&error, ExitCode::Config))?;
    let pins = PinDesk::new(source, &config.state.directory);
    let report = measure(options, &config, &pins).map_err(|failure| refused(&failure, ExitCode::Unavailable))?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("text and numbers"));
    } else {
        report.print();
    }
    if let Some(file) = &options.plot {
        report.plot(file).map_err(|failure| refused(&failure, ExitCode::Unavailable))?;
    }
    Ok(ExitCode::Success)
}

fn measure(options: &Options, config: &Config, pins: &PinDesk) -> Result<Report, Failure> {
    pins.look()?;
    let time = Duration::from_secs(options.seconds);
    let progress = progress();
    let (identity, bare) = bare(config, pins, time, &progress)?;
    let best = best_rate(&bare);
    let file = &options.file.config;
    let text = fs::read_to_string(file).map_err(|source| Failure::Place { path: file.clone(), source })?;
    let place = Place::make(config, options.place.as_deref(), identity.serial.clone())?;
    block_on(place.clear(config, pins))?;
    let served = service(&place, &text, time, best, &progress);
    progress.set_message("the keys of the measurement are destroyed");
    let cleared = block_on(place.clear(config, pins));
    progress.finish_and_clear();
    let service = served?;
    cleared?;
    Ok(Report::new(identity.uri().to_string(), bare, service))
}

fn bare(
    config: &Config,
    pins: &PinDesk,
    time: Duration,
    progress: &ProgressBar,
) -> Result<(TokenIdentity, Vec<Figures>), Failure> {
    let token = Bare::open(&config.token, pins)?;
    let mut measured = Vec::new();
    for workers in WORKERS {
        progress.set_message("the bare token");
        let (begun, before) = (Instant::now(), cpu(std::process::id()));
        let taken = token.sign_for(time, workers)?;
        let cpu = cpu(std::process::id()).saturating_sub(before);
        measured.push(Figures::of("the bare token: C_Sign", workers, taken, begun.elapsed(), cpu));
        progress.inc(1);
    }
    let identity = token.identity().clone();
    token.close()?;
    Ok((identity, measured))
}

fn service(
    place: &Place,
    text: &str,
    time: Duration,
    best: f64,
    progress: &ProgressBar,
) -> Result<Vec<Figures>, Failure> {
    progress.set_message("an appliance starts");
    let serving = place.serve(text)?;
    let load = Load::on(&serving);
    let layers = [Job::Nothing, Job::Nonce, Job::Data].map(|job| (job, USUAL));
    let mut measured = Vec::new();
    for (job, clients) in layers.into_iter().chain(CLIENTS.map(|clients| (Job::Attestation, clients))) {
        progress.set_message(job.name());
        if matches!(job, Job::Attestation) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of requests")]
            load.prepare((best * time.as_secs_f64()) as usize)?;
        }
        let figures = load.run(job, clients, time)?;
        let of_bare = job.signs().then(|| figures.per_second / best);
        measured.push(Figures { of_bare, ..figures });
        progress.inc(1);
    }
    Ok(measured)
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:20} {pos}/{len} {msg}").expect("the template is a constant");
    let bar = ProgressBar::new(STEPS).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
