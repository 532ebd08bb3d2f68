//! A lane: a bounded queue, and workers that each own a session. Signing and lifecycle work have lanes
//! of their own, so that neither waits for the other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;

use super::{
    Error,
    crew::{Call, Calls, Crew, Job},
    module::Module,
    session::TokenSession,
};

/// A queue and the threads that work it off.
pub(super) struct Lane {
    jobs: Sender<Job>,
    crew: Arc<Crew>,
}

impl Lane {
    /// Starts `workers` threads behind a queue of `queue` calls.
    pub fn start(
        name: &'static str,
        workers: usize,
        queue: usize,
        calls: Calls,
        module: &Arc<Module>,
    ) -> Result<Self, Error> {
        let (jobs, waiting) = crossbeam_channel::bounded::<Job>(queue);
        let crew = Crew::start(name, workers, calls, module, waiting).map_err(Error::Worker)?;
        Ok(Self { jobs, crew })
    }

    /// Runs `call` on a worker. The answer comes within `deadline` or is [`Error::Deadline`]; a call
    /// that is still in the queue by then is not made any more.
    pub async fn call<T: Send + 'static>(
        &self,
        deadline: Duration,
        call: impl FnOnce(&mut TokenSession) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, answer) = oneshot::channel();
        let latest = Instant::now() + deadline;
        let run = Box::new(move |session: &mut TokenSession| {
            if Instant::now() < latest && !done.is_closed() {
                // A caller that has gone meanwhile needs no answer.
                let _ = done.send(call(session));
            }
        });
        self.jobs.try_send(Job::Call(Call { latest, run })).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Error::Busy,
        })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            // The worker dropped the call unmade because its time had passed.
            Ok(Err(_)) | Err(_) => Err(Error::Deadline(deadline)),
        }
    }

    /// Lets the workers finish what is queued, and ends them and their sessions. False when one of
    /// them is still busy after `patience`, or hangs: nothing can cancel its call. Calls made after this
    /// run into their deadline.
    pub fn stop(&self, patience: Duration) -> bool {
        let latest = Instant::now() + patience;
        for _ in 0..self.crew.no_more() {
            // Fails only when every worker has gone already, or none takes anything any more.
            let _ = self.jobs.send_deadline(Job::Stop, latest);
        }
        self.crew.ended_by(latest)
    }
}
