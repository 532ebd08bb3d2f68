//! A lane: worker threads that each own a session, fed from one bounded queue. Signing and
//! lifecycle work have lanes of their own, so that neither waits for the other.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, TrySendError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Error, module::Module, session::TokenSession};

type Job = Box<dyn FnOnce(&mut TokenSession) + Send>;

/// A queue and the threads that work it off.
pub(super) struct Lane {
    /// `None` once the lane was stopped.
    jobs: Mutex<Option<Sender<Job>>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl Lane {
    /// Starts `workers` threads behind a queue of `queue` calls.
    pub fn start(name: &str, workers: usize, queue: usize, module: &Arc<Module>) -> Result<Self, Error> {
        let (jobs, waiting) = crossbeam_channel::bounded::<Job>(queue);
        let workers = (0..workers)
            .map(|_| {
                let (waiting, mut session) = (waiting.clone(), TokenSession::new(Arc::clone(module)));
                let work = move || waiting.iter().for_each(|job| job(&mut session));
                thread::Builder::new().name(name.to_owned()).spawn(work)
            })
            .collect::<Result<_, _>>()
            .map_err(Error::Worker)?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), workers: Mutex::new(workers) })
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
        let job: Job = Box::new(move |session| {
            if Instant::now() < latest && !done.is_closed() {
                // A caller that has gone meanwhile needs no answer.
                let _ = done.send(call(session));
            }
        });
        let jobs = self.jobs.lock().clone().ok_or(Error::Busy)?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Error::Busy,
        })?;
        // A worker's queue ends only when every sender is gone.
        drop(jobs);
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            // The worker dropped the call unmade because its time had passed.
            Ok(Err(_)) | Err(_) => Err(Error::Deadline(deadline)),
        }
    }

    /// Lets the workers finish what is queued and ends them. False when one of them is still busy
    /// after `patience`: it hangs in a call that nothing can cancel.
    pub fn stop(&self, patience: Duration) -> bool {
        drop(self.jobs.lock().take());
        let latest = Instant::now() + patience;
        let mut workers = self.workers.lock();
        while !workers.iter().all(JoinHandle::is_finished) {
            if Instant::now() > latest {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        for worker in workers.drain(..) {
            // A worker that panicked has already written its message.
            let _ = worker.join();
        }
        true
    }
}
