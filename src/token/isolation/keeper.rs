//! The thread that keeps a process that holds the module: starts it, gives it the PIN, hands out its
//! answers, kills it when it is silent, and starts the next. How one takes over from another that still
//! works is in [`super::relief`].

use std::{
    io::{ErrorKind, Read},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{
    super::{Config, Error, PinDesk, TokenIdentity, pin::GivesPin, recovery::Recovery, verb::Answer},
    line::Line,
    process::Process,
    remote::{Shared, Stage},
    wire::{FromChild, Inbox, Opened, Opening, Pin, ToChild},
};
use crate::telemetry;

/// How often it is asked whether the process lives.
const TICK: Duration = Duration::from_millis(250);

/// How long loading the module, finding the token and logging in may take.
const OPENING: Duration = Duration::from_secs(30);

/// A wait so short that callers wait as well.
const SHORT: Duration = Duration::from_millis(500);

/// Keeps one process after the other.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) config: Config,
    pins: PinDesk,
    pub(super) shared: Arc<Shared>,
    /// Disconnected when it is to end.
    stopped: Receiver<()>,
    pub(super) recovery: Recovery,
    /// What the first process has found: the next must find the same.
    known: Option<Opened>,
}

/// A process that runs.
pub(super) struct Running {
    pub line: Arc<Line>,
    pub process: Arc<Process>,
    socket: UnixStream,
    inbox: Inbox,
    heard: Instant,
    /// When it was asked whether it lives, if it has not said so since.
    asked: Option<Instant>,
    /// Whose PIN it has and may be logging in with.
    login: Option<TokenIdentity>,
    /// Another would do better.
    pub is_weary: bool,
    has_signed: bool,
}

/// Why answers are handed out no more.
pub(super) enum Served {
    ToTheEnd,
    Enough,
}

/// The process has ended, or sends what nobody understands.
struct Ended;

impl Keeper {
    pub fn new(config: Config, pins: PinDesk, shared: Arc<Shared>, stopped: Receiver<()>) -> Self {
        Self { config, pins, shared, stopped, recovery: Recovery::default(), known: None }
    }

    /// Starts the first process, tells what came of it, and keeps one running until it is told to stop.
    pub fn run(mut self, tell: &Sender<Result<Opened, Error>>) {
        let mut running = match self.start() {
            Ok((running, opened)) => {
                self.known = Some(opened.clone());
                // The stage before the word: whoever hears it may call.
                self.up(&running);
                let _ = tell.send(Ok(opened));
                running
            }
            Err(error) => return drop(tell.send(Err(error))),
        };
        loop {
            running = match self.serve(&mut running, |running| running.is_weary && self.may_relieve()) {
                Served::Enough => self.relieve(running),
                Served::ToTheEnd => match self.replace(&mut running) {
                    Some(next) => next,
                    None => break,
                },
            }
        }
        self.shared.stage.send_replace(Stage::Closed);
    }

    /// Says that it has ended, and starts another; `None` when it was to end.
    fn replace(&mut self, ended: &mut Running) -> Option<Running> {
        if !self.closing() {
            self.shared.losses.fetch_add(1, Ordering::Relaxed);
            self.shared.stage.send_replace(Stage::Starting);
        }
        // In this order: whoever is sent away finds what comes next.
        ended.line.hang_up();
        let how = ended.process.end();
        if self.closing() {
            return None;
        }
        self.appreciate(ended);
        self.doubt(ended);
        tracing::error!(%how, "the process that holds the token has ended: another is started");
        loop {
            self.wait()?;
            match self.start() {
                Ok((next, _)) => {
                    self.up(&next);
                    tracing::warn!("another process holds the token");
                    return Some(next);
                }
                Err(error) => {
                    self.recovery.failed(Instant::now(), Some(&error));
                    let refused = self.recovery.refused_pin();
                    self.shared.stage.send_replace(refused.map_or(Stage::Down, Stage::Refused));
                }
            }
        }
    }

    /// Waits until another may be started; `None` when it is to end meanwhile.
    fn wait(&mut self) -> Option<()> {
        let pause = self.recovery.pause(Instant::now());
        if pause.is_none_or(|pause| pause > SHORT) && matches!(*self.shared.stage.borrow(), Stage::Starting) {
            let refused = self.recovery.refused_pin();
            self.shared.stage.send_replace(refused.map_or(Stage::Down, Stage::Refused));
        }
        match self.stopped.recv_timeout(pause.unwrap_or(Duration::MAX)) {
            Err(RecvTimeoutError::Timeout) => Some(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    pub(super) fn up(&mut self, running: &Running) {
        self.recovery.succeeded(Instant::now());
        self.shared.stage.send_replace(Stage::Up(Arc::clone(&running.line), Arc::clone(&running.process)));
    }

    /// A process that made signatures was worth starting, and is replaced soon.
    pub(super) fn appreciate(&mut self, ended: &Running) {
        if ended.has_signed {
            self.recovery.was_useful();
        }
    }

    /// A login that the process has ended in may have been one with a wrong PIN.
    fn doubt(&self, ended: &mut Running) {
        if let Some(token) = ended.login.take() {
            self.pins.unanswered(&token, self.known.is_some());
        }
    }

    pub(super) fn closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// Starts a process and has it open the token.
    pub(super) fn start(&self) -> Result<(Running, Opened), Error> {
        let (process, socket) = Process::start(&self.config.environment).map_err(Error::Worker)?;
        let mut running = Running::new(process, socket, self.config.queue)?;
        let opened = self.open(&mut running);
        if opened.is_err() {
            running.process.end();
            self.doubt(&mut running);
        }
        opened.map(|opened| (running, opened))
    }

    fn open(&self, running: &mut Running) -> Result<Opened, Error> {
        running.line.send(&ToChild::Open(self.opening()));
        let latest = Instant::now() + OPENING;
        loop {
            match running.receive() {
                Ok(Some(FromChild::Opened(opened))) => return self.check(opened?),
                Ok(Some(other)) => drop(self.answer(other, running)),
                Ok(None) if Instant::now() > latest || self.closing() => {
                    return Err(Error::Deadline(OPENING));
                }
                Ok(None) => {}
                Err(Ended) => return Err(Error::lost("the process that opens the token has ended")),
            }
        }
    }

    fn opening(&self) -> Opening {
        let mut config = self.config.clone();
        if let Some(known) = &self.known {
            // Trying them out takes time that callers wait.
            config.algorithms = Some(known.algorithms.clone());
        }
        Opening {
            config: serde_json::to_string(&config).expect("a configuration is text and numbers"),
            log: telemetry::started(),
            has_objects: self.shared.has_objects.load(Ordering::Relaxed),
        }
    }

    fn check(&self, opened: Opened) -> Result<Opened, Error> {
        self.expect(&opened.identity).map(|()| opened)
    }

    /// It must be the token that it always was.
    fn expect(&self, token: &TokenIdentity) -> Result<(), Error> {
        match &self.known {
            Some(known) if known.identity != *token => {
                Err(Error::NoToken { uri: known.identity.uri(), present: token.uri().to_string() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Hands out answers until the process ends, or there is another reason.
    pub(super) fn serve(&self, running: &mut Running, mut is_enough: impl FnMut(&Running) -> bool) -> Served {
        // At least as patient as callers are, and not with a process that was stopped for a blink.
        let silence = self.config.call_deadline.max(Duration::from_secs(1));
        while !is_enough(running) {
            match running.receive() {
                Ok(Some(message)) => {
                    if self.answer(message, running).is_break() {
                        return Served::ToTheEnd;
                    }
                }
                Ok(None) => running.look(silence),
                Err(Ended) => return Served::ToTheEnd,
            }
        }
        Served::Enough
    }

    fn answer(&self, message: FromChild, running: &mut Running) -> ControlFlow<()> {
        match message {
            FromChild::Answer { id, answer } => {
                running.has_signed |= matches!(answer, Ok(Answer::Octets(_)));
                running.line.answer(id, answer);
            }
            FromChild::PinWanted { token, after_wrong } => {
                let pin = self.expect(&token).and_then(|()| self.pins.pin(&token, after_wrong));
                running.login = pin.is_ok().then_some(token);
                running.line.send_secret(&ToChild::Pin(pin.map(Pin)));
            }
            FromChild::PinAnswered { token, taken } => {
                running.login = None;
                self.pins.answered(&token, taken);
            }
            FromChild::Weary => running.is_weary = true,
            FromChild::PinRefused(refused) => self.pins.refused(refused),
            FromChild::Beat | FromChild::Opened(_) => {}
            FromChild::Closed(closed) => {
                *self.shared.closed.lock() = Some(closed);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Running {
    fn new(process: Process, socket: UnixStream, queue: usize) -> Result<Self, Error> {
        let made = socket.set_read_timeout(Some(TICK)).and_then(|()| socket.try_clone());
        // Four more lanes hold 64 calls each; the process itself says when they are full.
        let line = Arc::new(Line::new(made.map_err(Error::Worker)?, queue.saturating_add(1024)));
        let process = Arc::new(process);
        let heard = Instant::now();
        let inbox = Inbox::new();
        Ok(Self { line, process, socket, inbox, heard, asked: None, login: None, is_weary: false, has_signed: false })
    }

    /// The next message; `None` when there is none for a while.
    fn receive(&mut self) -> Result<Option<FromChild>, Ended> {
        loop {
            match self.inbox.next() {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(garbled) => {
                    tracing::error!(%garbled, "the process that holds the token is killed");
                    return Err(Ended);
                }
            }
            self.line.catch_up();
            match self.socket.read(self.inbox.room()) {
                Ok(0) => return Err(Ended),
                Ok(count) => {
                    self.inbox.received(count);
                    (self.heard, self.asked) = (Instant::now(), None);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Ended),
            }
        }
    }

    /// Asks a silent process whether it lives, and kills one that does not say so.
    fn look(&mut self, silence: Duration) {
        match self.asked {
            None if self.heard.elapsed() >= TICK => {
                self.line.send(&ToChild::Beat);
                self.asked = Some(Instant::now());
            }
            Some(asked) if asked.elapsed() > silence => {
                tracing::error!("the process that holds the token does not answer: it is killed");
                self.process.kill();
            }
            None | Some(_) => {}
        }
    }
}
