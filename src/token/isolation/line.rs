//! The calls of one process that holds the module: sent, many to a system call, and answered in any
//! order.

use std::{
    collections::HashMap,
    os::unix::net::UnixStream,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use rustix::{io::Errno, net::SendFlags};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{
    super::{
        Error,
        verb::{Answer, Request},
    },
    wire::{ToChild, put},
};

/// How long a process that waits for a secret may take to make room for it.
const SECRET_TIME: Duration = Duration::from_secs(1);

/// The way to one process.
pub(super) struct Line {
    socket: UnixStream,
    outbox: Mutex<Outbox>,
    /// `None` once the process has ended.
    calls: Mutex<Option<HashMap<u64, Caller>>>,
    last: AtomicU64,
    /// No more calls at once: a process that is stopped shall not fill our memory.
    limit: usize,
}

type Caller = oneshot::Sender<Result<Answer, Error>>;

#[derive(Default)]
struct Outbox {
    waiting: Vec<u8>,
    /// Somebody is sending, and takes along whatever is put here meanwhile.
    taken: bool,
    /// A secret goes first.
    held_up: bool,
}

/// Why there is no answer.
pub(super) enum NoAnswer {
    /// The process had ended before: it knows nothing of the call.
    NeverAsked,
    /// The process ended before it answered.
    Unanswered,
}

impl Line {
    pub fn new(socket: UnixStream, limit: usize) -> Self {
        let calls = Mutex::new(Some(HashMap::new()));
        Self { socket, outbox: Mutex::default(), calls, last: AtomicU64::new(0), limit }
    }

    /// Makes a call, and waits for its answer as long as there may be one.
    pub async fn ask(&self, request: Request) -> Result<Result<Answer, Error>, NoAnswer> {
        let (caller, answer) = oneshot::channel();
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        match &mut *self.calls.lock() {
            None => return Err(NoAnswer::NeverAsked),
            Some(calls) if calls.len() >= self.limit => return Ok(Err(Error::Busy)),
            Some(calls) => drop(calls.insert(id, caller)),
        }
        let _forgotten_when_dropped = Forgotten { line: self, id };
        self.send(&ToChild::Ask { id, request });
        answer.await.map_err(|_| NoAnswer::Unanswered)
    }

    /// Hands an answer to whoever waits for it, if anybody does.
    pub fn answer(&self, id: u64, answer: Result<Answer, Error>) {
        let caller = self.calls.lock().as_mut().and_then(|calls| calls.remove(&id));
        if let Some(caller) = caller {
            // It may have given up just now.
            let _ = caller.send(answer);
        }
    }

    /// Hangs up if nobody waits for an answer.
    pub fn hang_up_when_idle(&self) -> bool {
        let mut calls = self.calls.lock();
        let is_idle = calls.as_ref().is_none_or(HashMap::is_empty);
        if is_idle {
            *calls = None;
        }
        is_idle
    }

    /// The process has ended: whoever waits has no answer, and nobody can ask any more.
    pub fn hang_up(&self) {
        drop(self.calls.lock().take());
    }

    pub fn send(&self, message: &ToChild) {
        let mut outbox = self.outbox.lock();
        put(message, &mut outbox.waiting);
        self.send_waiting(outbox);
    }

    /// Sends what a full socket has left behind.
    pub fn catch_up(&self) {
        self.send_waiting(self.outbox.lock());
    }

    /// Sends what is not to stay in memory: past the outbox, which waits for it.
    pub fn send_secret(&self, message: &ToChild) {
        let mut bytes = Zeroizing::new(Vec::with_capacity(8192));
        put(message, &mut bytes);
        let (latest, mut sent) = (Instant::now() + SECRET_TIME, 0);
        self.outbox.lock().held_up = true;
        while sent < bytes.len() && Instant::now() < latest {
            let mut outbox = self.outbox.lock();
            if !outbox.taken {
                // It may begin in the middle of a frame: the secret comes after it.
                let gone = self.push(&outbox.waiting);
                outbox.waiting.drain(..gone);
                if outbox.waiting.is_empty() {
                    sent += self.push(&bytes[sent..]);
                }
            }
            drop(outbox);
            thread::yield_now();
        }
        if sent < bytes.len() {
            // It reads nothing, so it is silent, and will be killed.
            tracing::warn!("the process that holds the token takes nothing");
        }
        if sent == 0 || sent == bytes.len() {
            self.outbox.lock().held_up = false;
            self.catch_up();
        }
    }

    fn send_waiting(&self, mut outbox: MutexGuard<'_, Outbox>) {
        while !outbox.taken && !outbox.held_up && !outbox.waiting.is_empty() {
            outbox.taken = true;
            let mut bytes = std::mem::take(&mut outbox.waiting);
            let sent = MutexGuard::unlocked(&mut outbox, || self.push(&bytes));
            outbox.taken = false;
            if sent < bytes.len() {
                // The socket is full: the rest goes before what came meanwhile, when there is room.
                bytes.drain(..sent);
                bytes.append(&mut outbox.waiting);
                outbox.waiting = bytes;
                return;
            }
        }
    }

    /// Sends without waiting; how much of it.
    fn push(&self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            match rustix::net::send(&self.socket, &bytes[sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                // To nobody any more: that is noticed where answers are awaited.
                Err(_) => return sent,
            }
        }
        sent
    }
}

/// A call whose caller has gone.
struct Forgotten<'a> {
    line: &'a Line,
    id: u64,
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        if let Some(calls) = &mut *self.line.calls.lock() {
            calls.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use secrecy::SecretString;

    use super::{
        super::wire::{Inbox, Pin},
        *,
    };

    #[test]
    fn a_secret_arrives_whole_whatever_others_send_meanwhile() {
        const SECRETS: usize = 50;
        const BEATS: usize = 3 * 2000;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let line = Line::new(ours, 1);
        let arrived = thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..BEATS / 3).for_each(|_| line.send(&ToChild::Beat)));
            }
            scope.spawn(|| {
                for _ in 0..SECRETS {
                    line.send_secret(&ToChild::Pin(Ok(Pin(SecretString::from("4917-8253".to_owned())))));
                }
            });
            let (mut inbox, mut arrived) = (Inbox::new(), (0, 0));
            while arrived != (BEATS, SECRETS) {
                // What a full socket has left behind is sent when somebody looks.
                line.catch_up();
                let count = theirs.read(inbox.room()).unwrap();
                inbox.received(count);
                while let Some(message) = inbox.next::<ToChild>().unwrap() {
                    match message {
                        ToChild::Beat => arrived.0 += 1,
                        ToChild::Pin(Ok(_)) => arrived.1 += 1,
                        other => panic!("{other:?}"),
                    }
                }
            }
            arrived
        });
        assert_eq!(arrived, (BEATS, SECRETS));
    }
}
