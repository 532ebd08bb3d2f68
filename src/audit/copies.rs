//! Copies of the records for others: each has a queue of its own, and a full one drops and counts.
//! Nothing here ever holds up a record.

use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Batches that may wait for one receiver.
const QUEUE: usize = 1024;

/// Lines of records that are on disk, newline after each.
pub type Lines = Arc<[u8]>;

/// Everyone who gets a copy.
#[derive(Default)]
pub struct Copies(Vec<(Sender<Lines>, IntCounter)>);

impl Copies {
    /// One more receiver; `dropped` counts the records that it has missed.
    pub fn add(&mut self, dropped: IntCounter) -> Receiver<Lines> {
        let (sender, receiver) = channel(QUEUE);
        self.0.push((sender, dropped));
        receiver
    }

    /// Hands out what was written.
    pub fn send(&self, lines: &[u8]) {
        if self.0.is_empty() {
            return;
        }
        let copy: Lines = lines.into();
        for (receiver, dropped) in &self.0 {
            if receiver.try_send(Arc::clone(&copy)).is_err() {
                dropped.inc_by(records(lines));
            }
        }
    }
}

/// How many records these lines are.
#[must_use]
pub fn records(lines: &[u8]) -> u64 {
    lines.split_inclusive(|byte| *byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_receiver_that_does_not_keep_up_misses_records_and_holds_up_nobody() {
        let (mut copies, dropped) = (Copies::default(), IntCounter::new("dropped", "dropped").unwrap());
        let mut receiver = copies.add(dropped.clone());
        for _ in 0..QUEUE + 3 {
            copies.send(b"one\ntwo\n");
        }
        assert_eq!(dropped.get(), 6);
        assert_eq!(receiver.recv().await.unwrap()[..], *b"one\ntwo\n");
        copies.send(b"three\n");
        assert_eq!(dropped.get(), 6);
    }
}
