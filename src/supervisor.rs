//! The life of the running process: readiness to systemd, signals, watchdog, drain.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::Config,
    exit_code::ExitCode,
    fleet::Memory,
    http::{Pulse, Reloader, Servers},
    key::seen::Seen,
    service::{Service, nonce_watch::NonceWatch, upkeep::Upkeep},
    systemd,
};

/// How often nonces whose window has ended are forgotten.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);

/// How often the nonce store is asked whether it answers; a store in Redis then also hears the ends
/// of spends whose reply was lost.
const NONCE_STORE_INTERVAL: Duration = Duration::from_secs(2);

/// How often blocks set elsewhere are looked for.
const BLOCKS_INTERVAL: Duration = Duration::from_millis(400);

/// How often standbys are looked at, and the primary beside them.
const TOKENS_INTERVAL: Duration = Duration::from_millis(400);

/// How often the fleet is told how far this appliance has read.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// How often certificates and callers' keys are looked at for changes.
const FILES_INTERVAL: Duration = Duration::from_secs(1);

/// How often due rotations, warnings and attributes are looked at.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(20);

/// How often appliances tell each other of their trails.
const WITNESS_INTERVAL: Duration = Duration::from_secs(1);

/// How often closed files of the trail are looked at.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is asked whether a checkpoint is due.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(500);

/// What the end takes beyond the requests in progress: the last record, the last checkpoint, the token.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// The signals that mean something, taken before anything else happens: by default each of them
/// would end the process on the spot.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    rotate: Signal,
    /// Certificates and callers' keys are read again, from files and over the network.
    hang_up: [Signal; 2],
}

impl Signals {
    /// Takes them. Those that arrive before [`run`] are acted on then.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            rotate: signal(SignalKind::user_defined1())?,
            hang_up: [signal(SignalKind::hangup())?, signal(SignalKind::hangup())?],
        })
    }
}

/// How this service is run.
pub struct Manner {
    /// The configuration file, whose limits are read again on SIGHUP.
    pub file: Option<PathBuf>,
    /// How often the ledger is read.
    pub refresh: Duration,
    /// How long it is served after it was told to end.
    pub leave: Duration,
}

/// Serves until SIGTERM or SIGINT (0), until the audit trail fails (70), or until so many calls to the
/// token hang that only a new process can use it (69).
pub async fn run(
    servers: Servers,
    service: &Arc<Service>,
    signals: Signals,
    manner: Manner,
    ready: impl FnOnce(),
) -> ExitCode {
    let Manner { file, refresh, leave } = manner;
    let Signals { mut terminate, mut interrupt, rotate, hang_up: [reread, refetch] } = signals;
    let (stop, patience) = (servers.stop_handle(), leave + servers.drain() + LAST_WORDS);
    let mut chores = vec![
        tokio::spawn(feed_watchdog(Arc::clone(service), servers.pulse())),
        tokio::spawn(chores(Arc::clone(service), rotate)),
        tokio::spawn(follow_ledger(Arc::clone(service), refresh)),
        tokio::spawn(tell_fleet(Arc::clone(service))),
        tokio::spawn(follow_blocks(Arc::clone(service))),
        tokio::spawn(follow_files(Arc::clone(service), servers.reloader(), file, reread)),
        tokio::spawn(follow_network(Arc::clone(service), servers.reloader(), refetch)),
        tokio::spawn(take_checkpoints(Arc::clone(service))),
        tokio::spawn(be_a_witness(Arc::clone(service))),
    ];
    chores.extend(follow_tokens(service));
    let mut serving = std::pin::pin!(servers.run());
    systemd::serving();
    ready();
    let code = tokio::select! {
        _ = terminate.recv() => ExitCode::Success,
        _ = interrupt.recv() => ExitCode::Success,
        () = service.audit.failed() => ExitCode::Software,
        () = service.token.until_stuck() => ExitCode::Unavailable,
        ended = &mut serving => {
            tracing::error!(result = ?ended, "the server ended by itself");
            ExitCode::Software
        }
    };
    systemd::stopping(patience);
    tracing::info!(?code, "stopping");
    service.leaving.store(true, Ordering::Relaxed);
    if code == ExitCode::Success {
        // Still served: whoever sends requests has to see first that it should send no more.
        tokio::time::sleep(leave).await;
    }
    tokio::join!(stop.stop(), async {
        // Already reported above when it ended with an error.
        let _ = serving.await;
    });
    for chore in chores {
        chore.abort();
        // Waited for, so that it no longer holds the service when the token is closed.
        let _ = chore.await;
    }
    code
}

/// Reads the ledger again and again, so that the lease to sign does not run out and changes by
/// other appliances are followed.
async fn follow_ledger(service: Arc<Service>, every: Duration) {
    let (mut healthy, mut losses) = (true, 0);
    loop {
        tokio::time::sleep(every).await;
        let result = service.keyring.refresh().await;
        // The process that held the token ended: that is a loss even when nobody had to wait for it.
        let process_ended = service.count_token_losses(&mut losses);
        // One line when it begins to fail and one when it works again, not one a reading.
        match (&result, healthy) {
            (Err(error), true) => {
                tracing::error!(%error, "the key ledger cannot be read: signing stops when the lease ends");
                service.note_token(Some(error.kind())).await;
            }
            (Ok(_), false) => {
                tracing::info!("the key ledger is readable again");
                service.note_token(None).await;
            }
            (Ok(_), true) if process_ended => {
                service.note_token(Some("token_process_ended")).await;
                service.note_token(None).await;
            }
            (Ok(_), true) | (Err(_), false) => {}
        }
        healthy = result.is_ok();
    }
}

/// Looks at several tokens, each beside the others: one that hangs holds up no other. Where there is one only,
/// nobody has anything to do.
fn follow_tokens(service: &Arc<Service>) -> Vec<tokio::task::JoinHandle<()>> {
    let standbys = service.tokens.standbys().len();
    if standbys == 0 {
        return Vec::new();
    }
    let standbys = (0..standbys).map(|index| tokio::spawn(follow_standby(Arc::clone(service), index)));
    let others =
        [tokio::spawn(follow_primary(Arc::clone(service))), tokio::spawn(record_switches(Arc::clone(service)))];
    standbys.chain(others).collect()
}

async fn follow_standby(service: Arc<Service>, index: usize) {
    while let Some(standby) = service.tokens.standbys().get(index) {
        service.look_at_standby(standby).await;
        tokio::time::sleep(TOKENS_INTERVAL).await;
    }
}

async fn follow_primary(service: Arc<Service>) {
    loop {
        tokio::time::sleep(TOKENS_INTERVAL).await;
        service.look_at_primary().await;
    }
}

async fn record_switches(service: Arc<Service>) {
    while let Some(switch) = service.tokens.switch().await {
        service.record_switch(switch).await;
    }
}

/// Tells the fleet how far this appliance has read. Only for others to see: what holds is on the
/// token, so a report that fails is not worth a word.
async fn tell_fleet(service: Arc<Service>) {
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        let _ = service.fleet.report(&Seen::of(&service.keyring.standing()), Memory::Further).await;
    }
}

/// Keeps the blocks of the fleet together, so that one set anywhere holds everywhere within a second.
async fn follow_blocks(service: Arc<Service>) {
    let mut healthy = true;
    loop {
        tokio::time::sleep(BLOCKS_INTERVAL).await;
        let result = service.limits.share_blocks(service.clock.now()).await;
        match (&result, healthy) {
            (Err(error), true) => {
                tracing::warn!(%error, "blocks are not followed: those known here go on holding");
            }
            (Ok(()), false) => tracing::info!("blocks are followed again"),
            (Ok(()), true) | (Err(_), false) => {}
        }
        healthy = result.is_ok();
    }
}

/// Exchanges checkpoints with the fleet. Without Redis nobody is there to exchange with.
async fn be_a_witness(service: Arc<Service>) {
    loop {
        tokio::time::sleep(WITNESS_INTERVAL).await;
        if let Err(error) = service.witness_round().await {
            tracing::debug!(%error, "no checkpoints were exchanged with the fleet");
        }
    }
}

/// Has the trail's head signed in the token from time to time.
async fn take_checkpoints(service: Arc<Service>) {
    let mut healthy = true;
    let mut tidy = tokio::time::interval(TIDY_INTERVAL);
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECKPOINT_LOOK) => {}
            _ = tidy.tick() => if let Err(error) = service.tidy_trail().await {
                tracing::warn!(%error, "closed files of the audit trail could not be tidied up");
            },
        }
        let result = service.checkpoint_when_due().await;
        match (&result, healthy) {
            (Err(error), true) => tracing::warn!(%error, "the audit trail's head could not be signed"),
            (Ok(()), false) => tracing::info!("the audit trail's head is signed again"),
            (Ok(()), true) | (Err(_), false) => {}
        }
        healthy = result.is_ok();
    }
}

/// Reads certificates and callers' keys again when their files change, and all of them on SIGHUP, the
/// limits of the configuration file besides: what systemd calls a reload.
async fn follow_files(service: Arc<Service>, reloader: Reloader, file: Option<PathBuf>, mut hang_up: Signal) {
    loop {
        for (of, at) in reloader.expiries() {
            #[expect(clippy::cast_precision_loss, reason = "seconds of Unix time are far below 2^52")]
            service.metrics.tls_expiry.with_label_values(&[of]).set(at as f64);
        }
        let forced = due(&mut hang_up).await;
        if forced {
            systemd::reloading();
        }
        read_again(Reloader::refresh, &service, &reloader, forced).await;
        if forced {
            if let Some(file) = &file {
                read_limits_again(&service, file).await;
            }
            systemd::serving();
        }
    }
}

/// Nothing else of the file is put in force before a restart.
async fn read_limits_again(service: &Service, file: &Path) {
    match Config::load(file) {
        Ok(config) => tell(service, service.limits.change(config.limits).then(|| Ok("limits".into()))).await,
        Err(error) => tell(service, [Err(error.to_string())]).await,
    }
}

/// The same of what comes over the network, which may take its time: no reload waits for it.
async fn follow_network(service: Arc<Service>, reloader: Reloader, mut hang_up: Signal) {
    loop {
        let forced = due(&mut hang_up).await;
        read_again(Reloader::fetch, &service, &reloader, forced).await;
    }
}

/// Waits for the next look; true when it was asked for.
async fn due(hang_up: &mut Signal) -> bool {
    tokio::select! {
        () = tokio::time::sleep(FILES_INTERVAL) => false,
        signal = hang_up.recv() => signal.is_some(),
    }
}

/// One way of reading again.
type Reading = fn(&Reloader, bool) -> Vec<Result<String, String>>;

async fn read_again(reading: Reading, service: &Service, reloader: &Reloader, forced: bool) {
    let reloader = reloader.clone();
    // Nothing of it panics; if it did, the next look finds the change.
    let changes = tokio::task::spawn_blocking(move || reading(&reloader, forced)).await.unwrap_or_default();
    tell(service, changes).await;
}

async fn tell(service: &Service, changes: impl IntoIterator<Item = Result<String, String>>) {
    for change in changes {
        match change {
            Ok(what) => {
                tracing::info!(what, "read again");
                service.record_reload(&what).await;
            }
            Err(error) => tracing::error!(%error, "cannot be read: what was read before stays in use"),
        }
    }
}

/// Tells systemd again and again that the process lives, for as long as every thread that serves turns.
/// A token that is away is no reason to stop: health says so, and a restart would only try the PIN once
/// more. One that more calls hang in than are given up is: if the process does not end, systemd ends it.
async fn feed_watchdog(service: Arc<Service>, pulse: Pulse) {
    let Some(period) = systemd::watchdog() else { return };
    let mut beat = tokio::time::interval(period / 3);
    loop {
        beat.tick().await;
        let (steady, stuck) = (pulse.is_steady(period / 2), service.token.is_stuck());
        if steady && !stuck {
            systemd::alive();
        } else {
            tracing::error!(steady, stuck, "a thread or the token hangs: the watchdog is not told that all is well");
        }
    }
}

/// What is done beside serving. None of it decides anything: deadlines count at use.
async fn chores(service: Arc<Service>, mut rotate: Signal) {
    let mut cleanup = tokio::time::interval(CLEANUP_INTERVAL);
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    let mut nonce_store = tokio::time::interval(NONCE_STORE_INTERVAL);
    let (mut keeper, mut nonce_watch) = (Upkeep::default(), NonceWatch::default());
    loop {
        tokio::select! {
            _ = cleanup.tick() => if let Err(error) = service.clean_up_nonces().await {
                tracing::warn!(%error, "nonces could not be cleaned up");
            },
            _ = nonce_store.tick() => nonce_watch.look(&service).await,
            _ = upkeep.tick() => keeper.run(&service).await,
            _ = rotate.recv() => match service.audit.rotate().await {
                Ok(Some(closed)) => tracing::info!(closed = %closed.display(), "the audit file was rotated"),
                Ok(None) => tracing::info!("the audit file is empty: it was not rotated"),
                Err(error) => tracing::error!(%error, "the audit file could not be rotated"),
            },
        }
    }
}
