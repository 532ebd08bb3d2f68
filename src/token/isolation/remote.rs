//! The token through a process of its own, as the appliance sees it: a call is answered, whichever process
//! answers it, or it is said that nobody knows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    super::{
        Config, Error, PinDesk, PinProblem,
        local::CLOSING,
        verb::{Answer, Request},
    },
    keeper::Keeper,
    line::{Line, NoAnswer},
    process::Process,
    wire::{Opened, ToChild},
};

/// The process there is now.
#[derive(Clone)]
pub(super) enum Stage {
    /// It comes in a moment: calls wait for it.
    Starting,
    Up(Arc<Line>, Arc<Process>),
    /// It did not come: calls are refused, and it is tried again.
    Down,
    /// The token refused the PIN: no process can open it.
    Refused(PinProblem),
    /// It was closed for good.
    Closed,
}

/// What the keeper of the process and its callers share.
pub(super) struct Shared {
    pub stage: watch::Sender<Stage>,
    /// Processes that ended unasked.
    pub losses: AtomicU64,
    /// Objects of ours were seen on the token.
    pub has_objects: AtomicBool,
    pub closing: AtomicBool,
    pub closed: Mutex<Option<Result<(), Error>>>,
}

/// The token of a process of its own.
pub(in crate::token) struct Remote {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// Dropped to wake the keeper for its end.
    stop: Mutex<Option<crossbeam_channel::Sender<()>>>,
    deadline: Duration,
}

impl Remote {
    /// Starts the process and has it open the token. Errors are those of the opening.
    pub fn open(config: &Config, pins: PinDesk) -> Result<(Self, Opened), Error> {
        let shared = Arc::new(Shared {
            stage: watch::Sender::new(Stage::Starting),
            losses: AtomicU64::new(0),
            has_objects: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            closed: Mutex::new(None),
        });
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (tell, told) = crossbeam_channel::bounded(1);
        let keeper = Keeper::new(config.clone(), pins, Arc::clone(&shared), stopped);
        // The process ends with the thread that started it (PR_SET_PDEATHSIG): this one lives as long.
        let name = thread::Builder::new().name("token-keeper".into());
        let thread = name.spawn(move || keeper.run(&tell)).map_err(Error::Worker)?;
        let opened = told.recv().unwrap_or(Err(Error::Unanswered))?;
        let keeper = Mutex::new(Some(thread));
        Ok((Self { shared, keeper, stop: Mutex::new(Some(stop)), deadline: config.call_deadline }, opened))
    }

    /// How many processes ended unasked.
    pub fn losses(&self) -> u64 {
        self.shared.losses.load(Ordering::Relaxed)
    }

    /// Has the process do what is asked. The answer comes within the deadline or is [`Error::Deadline`].
    pub async fn perform(&self, request: Request) -> Result<Answer, Error> {
        let deadline = request.deadline(self.deadline);
        let removes = matches!(request, Request::DestroyDataObject { .. });
        let answer =
            tokio::time::timeout(deadline, self.ask(request)).await.unwrap_or(Err(Error::Deadline(deadline)))?;
        match &answer {
            Answer::Records(records) if !records.is_empty() => self.shared.has_objects.store(true, Ordering::Relaxed),
            Answer::Done(()) if removes => self.shared.has_objects.store(false, Ordering::Relaxed),
            _ => {}
        }
        Ok(answer)
    }

    async fn ask(&self, request: Request) -> Result<Answer, Error> {
        let mut repeated = false;
        loop {
            match self.line().await?.ask(request.clone()).await {
                Ok(answer) => return answer,
                Err(NoAnswer::NeverAsked) => {}
                Err(NoAnswer::Unanswered) if !request.changes_nothing() => return Err(Error::Unanswered),
                // What ends one process after the other is not asked for ever.
                Err(NoAnswer::Unanswered) if repeated => {
                    return Err(Error::lost("the process that holds the token ended twice before it answered"));
                }
                Err(NoAnswer::Unanswered) => repeated = true,
            }
        }
    }

    /// The way to the process there is, or is in a moment.
    async fn line(&self) -> Result<Arc<Line>, Error> {
        let now = self.shared.stage.borrow().clone();
        let stage = match now {
            Stage::Starting => {
                let mut stages = self.shared.stage.subscribe();
                let changed = stages.wait_for(|stage| !matches!(stage, Stage::Starting)).await;
                changed.map_or(Stage::Closed, |stage| stage.clone())
            }
            other => other,
        };
        match stage {
            Stage::Up(line, _) => Ok(line),
            Stage::Refused(problem) => Err(Error::Pin(problem)),
            Stage::Closed => Err(Error::lost("the module was finalized")),
            Stage::Starting | Stage::Down => Err(Error::lost("the token is away; it is being looked for")),
        }
    }

    /// Has the module finalized and the process end; kills it when it does not. Doing it twice is harmless.
    pub fn close(&self) -> Result<(), Error> {
        let Some(keeper) = self.keeper.lock().take() else { return Ok(()) };
        self.shared.closing.store(true, Ordering::Release);
        drop(self.stop.lock().take());
        let stage = self.shared.stage.borrow().clone();
        if let Stage::Up(line, _) = &stage {
            line.send(&ToChild::Close);
        }
        let latest = Instant::now() + CLOSING;
        while !keeper.is_finished() {
            if Instant::now() > latest
                && let Stage::Up(_, process) = &*self.shared.stage.borrow()
            {
                process.kill();
            }
            thread::sleep(Duration::from_millis(1));
        }
        // A keeper that panicked has already written its message.
        let _ = keeper.join();
        self.shared.closed.lock().take().unwrap_or(match stage {
            Stage::Up(..) => Err(Error::Deadline(CLOSING)),
            Stage::Starting | Stage::Down | Stage::Refused(_) | Stage::Closed => Ok(()),
        })
    }
}
