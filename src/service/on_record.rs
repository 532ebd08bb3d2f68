//! The intent before, the outcome after: the one frame of everything that changes keys. And records of
//! what has happened anyway.

use crate::{
    audit::{Event, Outcome, Severity},
    service::{Error, Service},
};

impl Service {
    /// Announces, works, and records how it ended. `done` makes the record of a success; `event` is the
    /// announcement, and the record of whatever else comes of it.
    pub(super) async fn on_record<T>(
        &self,
        event: Event,
        work: impl Future<Output = Result<T, Error>>,
        done: impl FnOnce(&T) -> Event,
    ) -> Result<T, Error> {
        let intent = self.audit.intend(event.clone()).await?;
        let result = work.await;
        let outcome = match &result {
            Ok(value) => done(value),
            Err(error) => ended(event, error),
        };
        let recorded = intent.conclude(outcome).await;
        let value = result?;
        recorded?;
        Ok(value)
    }

    /// Records what stands whether or not that succeeds; `what` it was goes to the log if it does not.
    pub(super) async fn record_or_warn(&self, event: Event, what: &str) {
        if let Err(error) = self.audit.record(event).await {
            tracing::warn!(%error, "{what} could not be recorded");
        }
    }
}

/// A failure is one only where it is certain that nothing was changed.
fn ended(event: Event, error: &Error) -> Event {
    let left_open = matches!(error, Error::Token(error) if error.leaves_it_open());
    // A file may be in its place although its directory could not be synced.
    let nobody_knows = left_open || matches!(error, Error::LedgerUnavailable(_) | Error::StateUnwritable);
    let outcome = if nobody_knows { Outcome::Unknown } else { Outcome::Failure };
    event.with_outcome(outcome).of_severity(Severity::Warning).detail("error", error.kind())
}
