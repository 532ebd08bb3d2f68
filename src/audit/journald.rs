//! Copies of the records to journald, by its native protocol: a datagram of `FIELD=value` lines
//! (systemd, "Native Journal Protocol"). A record is one line, so none needs the binary form.

use std::{io, os::unix::net::UnixDatagram, path::Path, thread};

use prometheus::IntCounter;
use tokio::sync::mpsc::Receiver;

use super::copies::Lines;

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Starts a thread that sends every record to the journal at `socket`. What cannot be sent is counted.
pub fn start(socket: &Path, mut copies: Receiver<Lines>, dropped: IntCounter) -> io::Result<()> {
    let (socket, sender) = (socket.to_owned(), UnixDatagram::unbound()?);
    let work = move || {
        while let Some(lines) = copies.blocking_recv() {
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                if sender.send_to(&datagram(line), &socket).is_err() {
                    dropped.inc();
                }
            }
        }
    };
    thread::Builder::new().name("journald-copy".into()).spawn(work).map(drop)
}

fn datagram(record: &[u8]) -> Vec<u8> {
    [b"SYSLOG_IDENTIFIER=verification-signer-audit\nPRIORITY=5\nMESSAGE=", record, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Copies;

    #[test]
    fn every_record_is_one_entry_of_the_journal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let (mut copies, dropped) = (Copies::default(), IntCounter::new("dropped", "dropped").unwrap());
        start(&path, copies.add(dropped.clone()), dropped.clone()).unwrap();
        copies.send(b"{\"sequence\":1}\n{\"sequence\":2}\n");
        for sequence in 1..=2 {
            let mut entry = [0; 1000];
            let length = journal.recv(&mut entry).unwrap();
            let text = String::from_utf8_lossy(&entry[..length]).into_owned();
            assert!(text.ends_with(&format!("\nMESSAGE={{\"sequence\":{sequence}}}\n")), "{text}");
        }
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn without_a_journal_every_record_is_counted_as_missed() {
        let (mut copies, dropped) = (Copies::default(), IntCounter::new("dropped", "dropped").unwrap());
        start(Path::new("/nonexistent/socket"), copies.add(dropped.clone()), dropped.clone()).unwrap();
        copies.send(b"{\"sequence\":1}\n{\"sequence\":2}\n");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while dropped.get() < 2 {
            assert!(std::time::Instant::now() < deadline);
            thread::yield_now();
        }
    }
}
