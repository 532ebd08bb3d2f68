//! Writes many records into a trail, with the product's own writer.

use std::{
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use verification_signer::{
    audit::{self, Audit, Config, Copies, Event, EventType, Opened, Opening, Severity, Source},
    client::{Client, ClientIdentity, Grants},
    clock::Clock,
    key::PublicKey,
    metrics::Metrics,
    timestamp::Timestamp,
};

/// Opens a trail whose heads this key has signed.
pub fn open(directory: &Path, key: &PublicKey) -> (Opened, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let source = Source {
        service: "verification-signer",
        component: "signer",
        instance: "veid-signer@host:8080".into(),
        version: "0.1.0",
        host: "host".into(),
    };
    let config = Config { directory: directory.to_owned(), rotate_bytes: 1 << 30, ..Config::default() };
    loop {
        let opened = Audit::open(Opening {
            config: &config,
            source: &source,
            keys: std::slice::from_ref(key),
            remembered: Vec::new(),
            copies: Copies::default(),
            clock: Clock::system(),
            metrics: Arc::clone(&metrics),
        });
        match opened {
            Ok(opened) => return (opened, metrics),
            // The writer of the run before has not let go yet.
            Err(audit::OpenError::Locked { .. }) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
}

fn client(number: u64) -> Client {
    Client {
        identity: ClientIdentity::from(format!("producer-{}", number % 50).as_str()),
        request_id: format!("0199f0a2-0000-7000-8000-{number:012}"),
        trace_id: None,
        grants: Arc::new(Grants::everything()),
        address: IpAddr::from([10, 0, u8::try_from(number % 4).unwrap(), u8::try_from(number / 4 % 250).unwrap()]),
        user_agent: Some("producer/1.2".into()),
        method: "POST".into(),
        endpoint: "/api/v1/attestations".into(),
    }
}

/// What is noted before each of them.
fn nonce_used(number: u64) -> Event {
    Event::of_client(EventType::NonceUsed, "spend", "email_verification", &client(number), Clock::system().now())
        .detail("nonce_sha256", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
}

/// A record like those of attestations: one key in a hundred, a thousand addresses, ten records a second.
fn event(number: u64) -> Event {
    let client = client(number);
    let at = Timestamp::from_unix_seconds(1_700_000_000 + i64::try_from(number / 10).unwrap()).unwrap();
    let kind = match number % 1000 {
        0 => EventType::KeyAccessed,
        1..10 => EventType::AttestationRejected,
        _ => EventType::AttestationSigned,
    };
    Event::of_client(kind, "sign", format!("veid:attestation:f95fc6a8a1bab3ca:{number:016x}"), &client, at)
        .of_severity(if number.is_multiple_of(10_007) { Severity::Critical } else { Severity::Info })
        .detail("key_id", format!("veid-signer:{}", number / 100_000 + 1))
        .detail("attestation_type", "email_verification")
        .detail("subject", "virtengine1qyfe")
        .detail("nonce_sha256", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
        .detail("canonical_sha256", "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752")
}

/// Writes what attestations write; `noted`: with the use of the nonce.
pub async fn write(audit: &Audit, from: u64, count: u64, tasks: usize, noted: bool) {
    let next = Arc::new(AtomicU64::new(from));
    let writers: Vec<_> = (0..tasks)
        .map(|_| {
            let (audit, next) = (audit.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= from + count {
                        return;
                    }
                    if noted {
                        audit.note(&nonce_used(number)).unwrap();
                    }
                    audit.record_signature(&mut [event(number)], [7; 32]).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

pub async fn until_indexed(index: &audit::Index, records: u64) {
    while index.indexed() < records {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
