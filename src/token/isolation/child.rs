//! The process that holds the module: it does what it is asked, and ends when it is told to, when its
//! parent is gone, or when calls into the module hang.

use std::{convert::Infallible, io, sync::Arc, thread, time::Duration};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use rustix::process::Signal;
use secrecy::SecretString;
use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, oneshot},
};
use zeroize::Zeroizing;

use super::{
    super::{
        Config, Error, TokenIdentity,
        local::Local,
        pin::{GivesPin, RefusedPin},
        verb::Request,
    },
    sandbox,
    wire::{FromChild, Inbox, Opened, Opening, Pin, ToChild, put},
};
use crate::telemetry;

/// How long the parent may take to read the PIN.
const PIN_TIME: Duration = Duration::from_secs(10);

/// Runs until it is told to end. The process may have no other threads yet.
pub async fn run() -> io::Result<()> {
    let socket = sandbox::enter()?;
    socket.set_nonblocking(true)?;
    let (from_parent, to_parent) = UnixStream::from_std(socket)?.into_split();
    let (give_pin, pins) = crossbeam_channel::bounded(1);
    let child = Child { outbox: Arc::new(Outbox::default()), give_pin, pins };
    tokio::select! {
        ended = child.listen(from_parent) => ended.map(|closed| match closed {}),
        ended = child.outbox.send_all(to_parent) => ended,
    }
}

struct Child {
    outbox: Arc<Outbox>,
    give_pin: Sender<Result<SecretString, Error>>,
    pins: Receiver<Result<SecretString, Error>>,
}

impl Child {
    /// Reads what the parent asks, and has it done.
    async fn listen(&self, parent: OwnedReadHalf) -> io::Result<Infallible> {
        let (mut inbox, mut local) = (Inbox::new(), None);
        let (mut opening, mut is_weary) = (None, false);
        loop {
            tokio::select! {
                readable = parent.readable() => {
                    readable?;
                    match parent.try_read(inbox.room()) {
                        Ok(0) => end_at_once("the process that asks has ended"),
                        Ok(count) => inbox.received(count),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        Err(error) => return Err(error),
                    }
                    while let Some(message) = inbox.next().map_err(io::Error::other)? {
                        match message {
                            ToChild::Open(order) => opening = Some(self.open(&order)),
                            ToChild::Ask { id, request } => match &local {
                                Some(local) => self.perform(id, request, local),
                                None => return Err(io::Error::other("asked before the token was opened")),
                            },
                            // Nobody waits for it any more when this fails.
                            ToChild::Pin(pin) => drop(self.give_pin.try_send(pin.map(|Pin(pin)| pin))),
                            ToChild::Beat => self.outbox.put(&FromChild::Beat),
                            ToChild::Close => self.close(local.take()),
                        }
                    }
                }
                opened = async { opening.as_mut().expect("checked").await }, if opening.is_some() => {
                    opening = None;
                    local = self.opened(opened.unwrap_or(Err(Error::Unanswered)));
                }
                () = until_weary(local.as_deref()), if !is_weary => {
                    is_weary = true;
                    self.outbox.put(&FromChild::Weary);
                }
                () = until_stuck(local.as_deref()) => end_at_once("calls into the module hang"),
            }
        }
    }

    /// Opens the token in a thread, beside which the PIN can arrive.
    fn open(&self, order: &Opening) -> oneshot::Receiver<Result<Local, Error>> {
        telemetry::start(order.log);
        let (done, opened) = oneshot::channel();
        let pins = Arc::new(FromParent { outbox: Arc::clone(&self.outbox), pins: self.pins.clone() });
        // In the thread that starts all others: what it gives up, they never had.
        let (closed_in, has_objects) = (closed_in(order), order.has_objects);
        thread::spawn(move || {
            // The parent has gone when nobody waits for it.
            let _ = done.send(closed_in.and_then(|config| open(&config, has_objects, pins)));
        });
        opened
    }

    fn opened(&self, opened: Result<Local, Error>) -> Option<Arc<Local>> {
        let (local, told) = match opened {
            Ok(local) => {
                let (identity, algorithms) = (local.module.identity().clone(), local.module.algorithms().to_vec());
                (Some(Arc::new(local)), Ok(Opened { identity, algorithms }))
            }
            Err(error) => (None, Err(error)),
        };
        self.outbox.put(&FromChild::Opened(told));
        local
    }

    fn perform(&self, id: u64, request: Request, local: &Arc<Local>) {
        let (local, outbox) = (Arc::clone(local), Arc::clone(&self.outbox));
        tokio::spawn(async move {
            let answer = local.perform(request).await;
            outbox.put(&FromChild::Answer { id, answer });
        });
    }

    /// Finalizes the module beside whatever still goes on, says so, and ends.
    fn close(&self, local: Option<Arc<Local>>) {
        let outbox = Arc::clone(&self.outbox);
        thread::spawn(move || {
            let closed = local.map_or(Ok(()), |local| local.close());
            outbox.put(&FromChild::Closed(closed));
            outbox.end();
        });
    }
}

fn closed_in(order: &Opening) -> Result<Config, Error> {
    let config: Config = serde_json::from_str(&order.config).map_err(|error| Error::KeyPolicy(error.to_string()))?;
    sandbox::close_in(config.writable.as_deref()).map_err(Error::Sandbox)?;
    Ok(config)
}

fn open(config: &Config, has_objects: bool, pins: Arc<FromParent>) -> Result<Local, Error> {
    let local = Local::open(config, pins)?;
    if has_objects {
        local.module.expect_objects(true)?;
    }
    Ok(local)
}

/// Waits until so many calls hang that only another process helps.
async fn until_stuck(local: Option<&Local>) {
    match local {
        Some(local) => local.module.hung().until_too_much().await,
        None => std::future::pending().await,
    }
}

/// Waits until another process would do better.
async fn until_weary(local: Option<&Local>) {
    match local {
        Some(local) => local.module.hung().until_weary().await,
        None => std::future::pending().await,
    }
}

/// Ends without a word to the module: threads may hang in it, and would crash as its data is taken down.
fn end_at_once(why: &str) {
    tracing::error!(
        why,
        "the process that holds the token ends itself: calls into the module hang, or nobody asks any more"
    );
    // It does not return.
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
}

/// What waits to be sent. One system call takes all of it.
#[derive(Default)]
struct Outbox {
    waiting: Mutex<(Zeroizing<Vec<u8>>, bool)>,
    filled: Notify,
}

impl Outbox {
    fn put(&self, message: &FromChild) {
        put(message, &mut self.waiting.lock().0);
        self.filled.notify_one();
    }

    /// Nothing comes after what is waiting.
    fn end(&self) {
        self.waiting.lock().1 = true;
        self.filled.notify_one();
    }

    async fn send_all(&self, parent: OwnedWriteHalf) -> io::Result<()> {
        loop {
            let (bytes, last) = {
                let mut waiting = self.waiting.lock();
                (std::mem::take(&mut *waiting.0), waiting.1)
            };
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                parent.writable().await?;
                match parent.try_write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            if last {
                return Ok(());
            }
            self.filled.notified().await;
        }
    }
}

/// The parent, as the one who gives the PIN.
struct FromParent {
    outbox: Arc<Outbox>,
    pins: Receiver<Result<SecretString, Error>>,
}

impl GivesPin for FromParent {
    fn pin(&self, token: &TokenIdentity, after_wrong: bool) -> Result<SecretString, Error> {
        // One that came too late for whoever asked before.
        while self.pins.try_recv().is_ok() {}
        self.outbox.put(&FromChild::PinWanted { token: token.clone(), after_wrong });
        self.pins.recv_timeout(PIN_TIME).unwrap_or(Err(Error::PinSource("it did not come in time".into())))
    }

    fn answered(&self, token: &TokenIdentity, taken: bool) {
        self.outbox.put(&FromChild::PinAnswered { token: token.clone(), taken });
    }

    fn refused(&self, refused: RefusedPin) {
        self.outbox.put(&FromChild::PinRefused(refused));
    }
}
