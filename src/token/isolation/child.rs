//! The process that holds the module: it does what it is asked, and ends when it is told to, when its
//! parent is gone, or when calls into the module hang.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};
use rustix::process::Signal;
use secrecy::SecretString;
use tokio::runtime::Handle;

use super::{
    super::{
        Config, Error, TokenIdentity,
        lane::Asker,
        local::Local,
        pin::{GivesPin, RefusedPin},
        verb::{Answer, Request},
    },
    outbox::Outbox,
    sandbox,
    wire::{FromChild, Inbox, Opened, Opening, Pin, ToChild},
};
use crate::telemetry;

/// How long the parent may take to read the PIN.
const PIN_TIME: Duration = Duration::from_secs(10);

/// Runs until it is told to end. The process may have no other threads yet.
pub fn run() -> io::Result<()> {
    let socket = sandbox::enter()?;
    let (give_pin, pins) = crossbeam_channel::bounded(1);
    let outbox = Arc::new(Outbox::new(socket.try_clone()?));
    Child { socket, outbox, give_pin, pins, local: Arc::default() }.listen()
}

struct Child {
    socket: UnixStream,
    outbox: Arc<Outbox>,
    give_pin: Sender<Result<SecretString, Error>>,
    pins: Receiver<Result<SecretString, Error>>,
    /// The token, once it is open.
    local: Arc<OnceLock<Local>>,
}

impl Child {
    /// Reads what the parent asks, and has it done. Nothing here waits for the module.
    fn listen(&self) -> io::Result<()> {
        let mut inbox = Inbox::new();
        loop {
            match (&self.socket).read(inbox.room()) {
                Ok(0) => end_at_once("the process that asks has ended"),
                Ok(count) => inbox.received(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            while let Some(message) = inbox.next().map_err(io::Error::other)? {
                match message {
                    ToChild::Open(order) => self.open(&order),
                    ToChild::Ask { id, request } => self.perform(id, request)?,
                    // Nobody waits for it any more when this fails.
                    ToChild::Pin(pin) => drop(self.give_pin.try_send(pin.map(|Pin(pin)| pin))),
                    ToChild::Beat => self.outbox.send(&FromChild::Beat),
                    ToChild::Close => self.close(),
                }
            }
        }
    }

    /// Opens the token in a thread, beside which the PIN can arrive.
    fn open(&self, order: &Opening) {
        telemetry::start(order.log);
        let pins = Arc::new(FromParent { outbox: Arc::clone(&self.outbox), pins: self.pins.clone() });
        // In the thread that starts all others: what it gives up, they never had.
        let (closed_in, has_objects) = (closed_in(order), order.has_objects);
        let (place, outbox) = (Arc::clone(&self.local), Arc::clone(&self.outbox));
        let runtime = Handle::current();
        thread::spawn(move || {
            let local = match closed_in.and_then(|config| open(&config, has_objects, pins)) {
                Ok(local) => place.get_or_init(|| local),
                Err(error) => return outbox.send(&FromChild::Opened(Err(error))),
            };
            let (identity, algorithms) = (local.module.identity().clone(), local.module.algorithms().to_vec());
            // In this order: whoever hears it may ask.
            outbox.send(&FromChild::Opened(Ok(Opened { identity, algorithms })));
            runtime.block_on(watch(local, &outbox));
        });
    }

    fn perform(&self, id: u64, request: Request) -> io::Result<()> {
        let local = self.local.get().ok_or_else(|| io::Error::other("asked before the token was opened"))?;
        local.begin(request, ToParent { id, outbox: Arc::clone(&self.outbox) });
        Ok(())
    }

    /// Finalizes the module beside whatever still goes on, says so, and waits for the parent to end this.
    fn close(&self) {
        let (local, outbox) = (Arc::clone(&self.local), Arc::clone(&self.outbox));
        thread::spawn(move || {
            let closed = local.get().map_or(Ok(()), Local::close);
            outbox.send(&FromChild::Closed(closed));
        });
    }
}

/// Who waits on the other side. Whether anybody still does is known there.
struct ToParent {
    id: u64,
    outbox: Arc<Outbox>,
}

impl Asker for ToParent {
    fn waits(&self) -> bool {
        true
    }

    fn answer(self, answer: Result<Answer, Error>) {
        self.outbox.send(&FromChild::Answer { id: self.id, answer });
    }
}

/// Says once that another process would do better, and ends this one when only another helps.
async fn watch(local: &Local, outbox: &Arc<Outbox>) {
    let hung = local.module.hung();
    tokio::select! {
        () = hung.until_weary() => outbox.send(&FromChild::Weary),
        () = hung.until_too_much() => {}
    }
    hung.until_too_much().await;
    end_at_once("calls into the module hang");
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

/// Ends without a word to the module: threads may hang in it, and would crash as its data is taken down.
fn end_at_once(why: &str) {
    tracing::error!(
        why,
        "the process that holds the token ends itself: calls into the module hang, or nobody asks any more"
    );
    // It does not return.
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
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
        self.outbox.send(&FromChild::PinWanted { token: token.clone(), after_wrong });
        self.pins.recv_timeout(PIN_TIME).unwrap_or(Err(Error::PinSource("it did not come in time".into())))
    }

    fn answered(&self, token: &TokenIdentity, taken: bool) {
        self.outbox.send(&FromChild::PinAnswered { token: token.clone(), taken });
    }

    fn refused(&self, refused: RefusedPin) {
        self.outbox.send(&FromChild::PinRefused(refused));
    }
}
