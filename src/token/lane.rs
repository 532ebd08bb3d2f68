//! A lane: a bounded queue, and workers that each own a session. Signing and lifecycle work have lanes
//! of their own, so that neither waits for the other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, TrySendError};

use super::{
    Error,
    crew::{Call, Calls, Crew, Job},
    module::Module,
    session::TokenSession,
    verb::Answer,
};

/// Who waits for an answer. It is given by the thread that made the call.
pub(super) trait Asker: Send + 'static {
    /// Whether anybody does still.
    fn waits(&self) -> bool;

    fn answer(self, answer: Result<Answer, Error>);
}

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

    /// Has a worker make `call` and answer `asker`. A call whose `deadline` passes in the queue, or that
    /// nobody waits for any more, is neither made nor answered.
    pub fn call<T: Into<Answer>>(
        &self,
        deadline: Duration,
        asker: impl Asker,
        call: impl FnOnce(&mut TokenSession) -> Result<T, Error> + Send + 'static,
    ) {
        let latest = Instant::now() + deadline;
        let run = Box::new(move |session: Result<&mut TokenSession, Error>| match session {
            Ok(session) if Instant::now() < latest && asker.waits() => asker.answer(call(session).map(Into::into)),
            Ok(_) => {}
            Err(refusal) => asker.answer(Err(refusal)),
        });
        if let Err(TrySendError::Full(Job::Call(call)) | TrySendError::Disconnected(Job::Call(call))) =
            self.jobs.try_send(Job::Call(Call { latest, run }))
        {
            (call.run)(Err(Error::Busy));
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
