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

enum Job {
    Call(Box<dyn FnOnce(&mut TokenSession) + Send>),
    /// Ends the worker that takes it.
    Stop,
}

/// A queue and the threads that work it off.
pub(super) struct Lane {
    jobs: Sender<Job>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl Lane {
    /// Starts `workers` threads behind a queue of `queue` calls.
    pub fn start(name: &str, workers: usize, queue: usize, module: &Arc<Module>) -> Result<Self, Error> {
        let (jobs, waiting) = crossbeam_channel::bounded::<Job>(queue);
        let workers = (0..workers)
            .map(|_| {
                let (waiting, mut session) = (waiting.clone(), TokenSession::new(Arc::clone(module)));
                let work = move || {
                    while let Ok(Job::Call(call)) = waiting.recv() {
                        call(&mut session);
                    }
                };
                thread::Builder::new().name(name.to_owned()).spawn(work)
            })
            .collect::<Result<_, _>>()
            .map_err(Error::Worker)?;
        Ok(Self { jobs, workers: Mutex::new(workers) })
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
        let job = Job::Call(Box::new(move |session| {
            if Instant::now() < latest && !done.is_closed() {
                // A caller that has gone meanwhile needs no answer.
                let _ = done.send(call(session));
            }
        }));
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Error::Busy,
        })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            // The worker dropped the call unmade because its time had passed.
            Ok(Err(_)) | Err(_) => Err(Error::Deadline(deadline)),
        }
    }

    /// Lets the workers finish what is queued, and ends them and their sessions. False when one of
    /// them is still busy after `patience`: it hangs in a call that nothing can cancel. Calls made
    /// after this run into their deadline.
    pub fn stop(&self, patience: Duration) -> bool {
        let mut workers = self.workers.lock();
        let latest = Instant::now() + patience;
        for _ in workers.iter() {
            // Fails only when every worker has gone already, or none takes anything any more.
            let _ = self.jobs.send_timeout(Job::Stop, patience);
        }
        while !workers.iter().all(JoinHandle::is_finished) {
            if Instant::now() > latest {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        for worker in workers.drain(..) {
            // A worker that panicked has already written its message.
            let _ = worker.join();
        }
        true
    }
}
