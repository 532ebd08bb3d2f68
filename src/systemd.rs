//! What systemd is told of this process, and asks of it: sd_notify(3), sd_watchdog_enabled(3). Without
//! systemd there is nobody to tell.

use std::time::Duration;

use sd_notify::NotifyState;

/// Requests are served.
pub fn serving() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// Files are read again; [`serving`] follows. The time lets systemd 253 and newer tell this reload from
/// an earlier one (`Type=notify-reload`).
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading files again")]),
        Err(error) => tracing::debug!(%error, "systemd was not told of a reload"),
    }
}

/// The process ends by itself within `patience`: until then it must not be killed.
pub fn stopping(patience: Duration) {
    let patience = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    let status = NotifyState::Status("stopping: requests in progress finish");
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(patience), status]);
}

/// Within this time systemd wants to hear [`alive`], or it ends the process.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// The process does what it should.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not notified");
    }
}
