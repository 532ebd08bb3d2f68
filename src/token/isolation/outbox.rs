//! What the process that holds the module has to say: whoever has an answer sends it, and takes along what
//! others put down meanwhile. Nobody who works in the module waits for a parent that does not read.

use std::{
    io::{self, Write},
    mem,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
};

use parking_lot::{Mutex, MutexGuard};
use rustix::{io::Errno, net::SendFlags};
use zeroize::Zeroizing;

use super::wire::{FromChild, put};

/// The way back to the parent.
pub(super) struct Outbox {
    socket: UnixStream,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    bytes: Zeroizing<Vec<u8>>,
    /// Somebody is sending, and takes along whatever is put here meanwhile.
    taken: bool,
}

impl Outbox {
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, waiting: Mutex::default() }
    }

    pub fn send(self: &Arc<Self>, message: &FromChild) {
        let mut waiting = self.waiting.lock();
        put(message, &mut waiting.bytes);
        if waiting.taken {
            return;
        }
        waiting.taken = true;
        while let Some(bytes) = next(&mut waiting) {
            let sent = MutexGuard::unlocked(&mut waiting, || self.push(&bytes));
            if sent < bytes.len() {
                return self.send_later(bytes, sent);
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
                Err(Errno::AGAIN) => break,
                // To nobody any more: whoever reads from it ends the process.
                Err(_) => return bytes.len(),
            }
        }
        sent
    }

    /// The socket is full: a thread of its own waits for room, and sends what is put down meanwhile.
    fn send_later(self: &Arc<Self>, rest: Zeroizing<Vec<u8>>, sent: usize) {
        let outbox = Arc::clone(self);
        thread::spawn(move || outbox.send_waiting(rest, sent));
    }

    fn send_waiting(&self, first: Zeroizing<Vec<u8>>, sent: usize) -> io::Result<()> {
        (&self.socket).write_all(&first[sent..])?;
        drop(first);
        let mut waiting = self.waiting.lock();
        while let Some(bytes) = next(&mut waiting) {
            MutexGuard::unlocked(&mut waiting, || (&self.socket).write_all(&bytes))?;
        }
        Ok(())
    }
}

/// What waits, or nothing, and then nobody is sending any more.
fn next(waiting: &mut Waiting) -> Option<Zeroizing<Vec<u8>>> {
    waiting.taken = !waiting.bytes.is_empty();
    waiting.taken.then(|| mem::take(&mut waiting.bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::{super::wire::Inbox, *};

    #[test]
    fn every_answer_arrives_once_and_whole_however_slowly_it_is_read() {
        const SENDERS: u64 = 4;
        const EACH: u64 = 2000;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let outbox = Arc::new(Outbox::new(ours));
        let mut seen = vec![0; usize::try_from(SENDERS * EACH).unwrap()];
        thread::scope(|scope| {
            for sender in 0..SENDERS {
                let outbox = Arc::clone(&outbox);
                scope.spawn(move || {
                    for number in 0..EACH {
                        let answer = Ok(vec![7; 300].into());
                        outbox.send(&FromChild::Answer { id: sender * EACH + number, answer });
                    }
                });
            }
            let (mut inbox, mut arrived) = (Inbox::new(), 0);
            while arrived < SENDERS * EACH {
                // Pieces that end anywhere; the socket is full most of the time.
                let room = inbox.room();
                let length = room.len().min(1001);
                let count = theirs.read(&mut room[..length]).unwrap();
                inbox.received(count);
                while let Some(message) = inbox.next::<FromChild>().unwrap() {
                    let FromChild::Answer { id, .. } = message else { panic!("{message:?}") };
                    seen[usize::try_from(id).unwrap()] += 1;
                    arrived += 1;
                }
            }
        });
        assert!(seen.iter().all(|count| *count == 1));
    }
}
