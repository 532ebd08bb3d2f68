//! What the durable trail costs a signature, and how it bears many records: search, the making of the
//! index, the start, memory.
//!
//! `make bench-trail`; records: `BENCH_RECORDS` (default 1 000 000).

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod trail_writer;

use std::{
    fs,
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::{Signer, SigningKey};
use trail_writer::{until_indexed, write};
use verification_signer::{
    audit::{self, Audit, EventType, Filter, Opened, Query, Severity, checkpoint::Checkpoint},
    evidence::TreeHead,
    key::{PublicKey, Signature},
    metrics::Metrics,
    timestamp::Timestamp,
};

fn records() -> u64 {
    std::env::var("BENCH_RECORDS").map_or(1_000_000, |text| text.parse().unwrap())
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn open(directory: &Path) -> (Opened, Arc<Metrics>) {
    trail_writer::open(directory, &PublicKey::Ed25519(key().verifying_key()))
}

/// CPU of the process and of its threads whose name begins so.
fn cpu(thread: Option<&str>) -> Duration {
    let ticks = |path: &Path| -> u64 {
        let stat = fs::read_to_string(path).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(") ") else { return 0 };
        fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
    };
    let total = match thread {
        None => ticks(Path::new("/proc/self/stat")),
        Some(name) => fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|task| task.unwrap().path())
            .filter(|task| fs::read_to_string(task.join("comm")).unwrap_or_default().starts_with(name))
            .map(|task| ticks(&task.join("stat")))
            .sum(),
    };
    Duration::from_millis(total * 10)
}

fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.trim_start_matches("VmRSS:").trim().to_owned()
}

async fn sign(audit: &Audit) {
    let position = audit.position().await.unwrap();
    let head = Checkpoint { origin: "bench".into(), size: position.tree.size(), root: position.tree.root() };
    let signature = Signature::from_slice(&key().sign(head.text().text()).to_bytes()).unwrap();
    let note = head.note(&PublicKey::Ed25519(key().verifying_key()), &signature).unwrap();
    audit::save_checkpoint(audit.directory(), &position, &note).unwrap();
}

fn show(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<64} {figure}");
}

/// CPU of writing this many bytes to the end of a file and `fdatasync`, by nobody but the caller.
fn bare_sync(directory: &Path, bytes: usize) -> Duration {
    const ROUNDS: u32 = 2_000;
    let (mut file, line) = (fs::File::create(directory.join("bare")).unwrap(), vec![b'x'; bytes]);
    let before = cpu(None);
    for _ in 0..ROUNDS {
        file.write_all(&line).unwrap();
        file.sync_data().unwrap();
    }
    cpu(None).saturating_sub(before) / ROUNDS
}

/// Bytes in all files of records.
fn written(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let records = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("audit.log"));
    records.map(|entry| entry.metadata().unwrap().len()).sum()
}

async fn cost(directory: &Path) {
    const RECORDS: u64 = 200_000;
    for (tasks, noted) in [(1, true), (16, true), (64, true), (512, true), (512, false)] {
        let (opened, metrics) = open(directory);
        let count = if tasks == 1 { 5_000 } else { RECORDS };
        let (begun, before, indexed) = (Instant::now(), cpu(None), cpu(Some("trail-index")));
        let (length, syncs) = (written(directory), metrics.audit_flush_latency.get_sample_count());
        write(&opened.audit, 0, count, tasks, noted).await;
        until_indexed(&opened.index, opened.audit.size()).await;
        let (elapsed, all) = (begun.elapsed(), cpu(None).saturating_sub(before));
        let index = cpu(Some("trail-index")).saturating_sub(indexed);
        let syncs = metrics.audit_flush_latency.get_sample_count() - syncs;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        let together = count as f64 / syncs as f64;
        let bytes = (written(directory) - length) / syncs;
        let sync = bare_sync(directory, usize::try_from(bytes).unwrap()).as_secs_f64() * 1e6 / together;
        show(
            &format!(
                "{tasks} at once, {} each: attestations a second",
                if noted { "two records" } else { "one record" }
            ),
            format!("{:.0}, {together:.1} a sync", count as f64 / elapsed.as_secs_f64()),
        );
        show(
            "  CPU an attestation: making, encoding, hashing, writing, waiting",
            format!("{:.1} µs", each(all.saturating_sub(index))),
        );
        show("  of it its share of a bare write and fdatasync of as many bytes", format!("{sync:.1} µs"));
        show("  CPU an attestation beside it: the index", format!("{:.1} µs", each(index)));
        show("  the trail, index and all, without the sync", format!("{:.1} µs", each(all) - sync));
        fs::remove_file(directory.join("bare")).unwrap();
    }
}

fn percentile(mut times: Vec<f64>, share: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() * share / 100).min(times.len() - 1)] * 1e3
}

/// What is searched for, and how it is called.
type Wanted<'a> = (&'a str, Box<dyn Fn() -> Filter + 'a>);

fn search(index: &audit::Index, records: u64) {
    let random = |bound: u64| getrandom::u64().unwrap() % bound.max(1);
    let at = |number: u64| Timestamp::from_unix_seconds(1_700_000_000 + i64::try_from(number / 10).unwrap());
    let kinds: [Wanted<'_>; 7] = [
        ("by type", Box::new(|| Filter { event_type: Some(EventType::KeyAccessed), ..Filter::default() })),
        (
            "by key",
            Box::new(|| Filter {
                key_id: Some(format!("veid-signer:{}", random(records / 100_000) + 1)),
                ..Filter::default()
            }),
        ),
        (
            "by address",
            Box::new(|| Filter { ip: Some(format!("10.0.{}.{}", random(4), random(250))), ..Filter::default() }),
        ),
        (
            "by time",
            Box::new(|| {
                let from = random(records);
                Filter { since: at(from), until: at(from + 100_000), ..Filter::default() }
            }),
        ),
        (
            "by type, key, address and time",
            Box::new(|| {
                let from = random(records);
                Filter {
                    event_type: Some(EventType::AttestationSigned),
                    key_id: Some(format!("veid-signer:{}", from / 100_000 + 1)),
                    ip: Some(format!("10.0.{}.{}", random(4), random(250))),
                    since: at(from.saturating_sub(50_000)),
                    until: at(from + 50_000),
                    ..Filter::default()
                }
            }),
        ),
        ("by a severity that is rare", Box::new(|| Filter { severity: Some(Severity::Critical), ..Filter::default() })),
        ("by an address that never came", Box::new(|| Filter { ip: Some("192.0.2.1".into()), ..Filter::default() })),
    ];
    for (name, filter) in kinds {
        let mut found = 0;
        let times = (0..500)
            .map(|round| {
                let query = Query { filter: filter(), limit: 100, newest_first: round % 2 == 0, cursor: None };
                let begun = Instant::now();
                found += index.search(&query).unwrap().records.len();
                begun.elapsed().as_secs_f64()
            })
            .collect::<Vec<_>>();
        let (p50, p99) = (percentile(times.clone(), 50), percentile(times, 99));
        show(&format!("search {name}, 100 a page: p50, p99"), format!("{p50:.2} ms, {p99:.2} ms ({found} found)"));
    }
}

/// Waits until the index of the run before has let go of its files.
fn until_index_is_closed() {
    let is_index = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("trail-index"))
    };
    while fs::read_dir("/proc/self/task").unwrap().any(|task| is_index(task.unwrap())) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn many(directory: &Path) {
    let records = records();
    let (opened, _) = open(directory);
    let begun = Instant::now();
    write(&opened.audit, 0, records, 512, false).await;
    show(
        &format!("{records} records written"),
        format!("{:.1} s, resident {}", begun.elapsed().as_secs_f64(), resident()),
    );
    sign(&opened.audit).await;
    until_indexed(&opened.index, records).await;
    show("index caught up after", format!("{:.1} s", begun.elapsed().as_secs_f64()));
    search(&opened.index, records);
    drop(opened);

    let begun = Instant::now();
    let (opened, _) = open(directory);
    show("start with a saved checkpoint", format!("{:.3} s", begun.elapsed().as_secs_f64()));
    drop(opened);

    until_index_is_closed();
    for name in ["audit.index", "audit.index-wal", "audit.index-shm", "audit.nodes"] {
        let _ = fs::remove_file(directory.join(name));
    }
    let (begun, (opened, _)) = (Instant::now(), open(directory));
    until_indexed(&opened.index, records).await;
    show("index made anew", format!("{:.1} s, resident {}", begun.elapsed().as_secs_f64(), resident()));
    drop(opened);

    let begun = Instant::now();
    let keys = [PublicKey::Ed25519(key().verifying_key())];
    audit::verify(directory, &keys, &[], |_| {}).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    show("audit verify", format!("{:.1} s, resident {}", begun.elapsed().as_secs_f64(), resident()));
    let size: u64 = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    let index: u64 =
        ["audit.index", "audit.nodes"].iter().map(|name| fs::metadata(directory.join(name)).unwrap().len()).sum();
    show("files, of which index", format!("{} MiB, {} MiB", size >> 20, index >> 20));
}

fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        cost(tempfile::tempdir().unwrap().path()).await;
        many(tempfile::tempdir().unwrap().path()).await;
    });
}
