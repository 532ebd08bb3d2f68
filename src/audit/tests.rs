//! The trail as a whole: writing, closing, and what the next start makes of what it finds.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    checkpoint::{self, Checkpoint},
    segment::OPEN,
    *,
};
use crate::{clock::Clock, key::PublicKey, metrics::Metrics, timestamp::Timestamp};

pub const ORIGIN: &str = "test/log";

pub fn source() -> Source {
    Source { service: "s", component: "c", instance: "i".into(), version: "v", host: "h".into() }
}

pub fn keys() -> Vec<PublicKey> {
    vec![checkpoint::tests::key(1).1]
}

pub fn config(directory: &Path) -> Config {
    Config { directory: directory.to_owned(), reserve_bytes: 1 << 16, ..Config::default() }
}

pub fn try_open(config: &Config) -> Result<Opened, OpenError> {
    Audit::open(Opening {
        config,
        source: &source(),
        keys: &keys(),
        remembered: Vec::new(),
        copies: Copies::default(),
        clock: Clock::system(),
        metrics: Arc::new(Metrics::new().unwrap()),
    })
}

/// Opens once the writer thread of a dropped `Audit` has let go of the directory.
pub fn open_with(config: &Config) -> Result<Opened, OpenError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match try_open(config) {
            Err(OpenError::Locked { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

pub fn open(directory: &Path) -> Audit {
    open_with(&config(directory)).unwrap().audit
}

fn refusal(directory: &Path) -> String {
    open_with(&config(directory)).err().expect("the trail must be refused").to_string()
}

pub fn now() -> Timestamp {
    Timestamp::parse("2026-11-23T10:00:00Z").unwrap()
}

pub fn event() -> Event {
    Event::of_service(EventType::ServiceStarted, "start", "service", now()).detail("text", "line\nbreak\u{2028}")
}

/// Signs the head as the service does.
pub async fn sign(audit: &Audit) -> Checkpoint {
    let position = audit.position().await.unwrap();
    let head = Checkpoint { origin: ORIGIN.into(), size: position.tree.size(), root: position.tree.root() };
    save_checkpoint(audit.directory(), &position, &checkpoint::tests::note(&head, 1)).unwrap();
    head
}

fn log(directory: &Path) -> PathBuf {
    directory.join(OPEN)
}

fn records(directory: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(log(directory)).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A trail of so many records, signed after some of them, and closed.
async fn written(directory: &Path, records: usize, signed_after: usize) {
    let audit = open(directory);
    for number in 1..=records {
        audit.record(event()).await.unwrap();
        if number == signed_after {
            sign(&audit).await;
        }
    }
}

#[tokio::test]
async fn sequences_go_on_over_restart_and_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let audit = open(directory.path());
    assert_eq!(audit.record(event()).await.unwrap().sequence(), 1);
    assert_eq!(audit.record(event()).await.unwrap().sequence(), 2);
    drop(audit);
    let audit = open(directory.path());
    assert_eq!(audit.record(event()).await.unwrap().sequence(), 3);
    let closed = audit.rotate().await.unwrap().unwrap();
    assert!(closed.file_name().unwrap().to_str().unwrap().starts_with("audit.log."));
    assert_eq!(audit.rotate().await.unwrap(), None, "there is nothing in the new file");
    drop(audit);
    let audit = open(directory.path());
    assert_eq!(audit.record(event()).await.unwrap().sequence(), 4);
}

#[tokio::test]
async fn one_record_is_one_line_whatever_it_says() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).record(event()).await.unwrap();
    let text = fs::read_to_string(log(directory.path())).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert_eq!(
        (&records(directory.path())[0]["type"], &records(directory.path())[0]["source"]["service"]),
        (&"service_started".into(), &"s".into())
    );
}

#[tokio::test]
async fn a_torn_record_stays_is_accounted_for_and_does_not_count() {
    for torn in [&b"{\"sequence\":2,\"ty"[..], b"\0\0\0", b"\0\0\n\0", b"\n", b"{}"] {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path(), 1, 1).await;
        let mut content = fs::read(log(directory.path())).unwrap();
        content.extend_from_slice(torn);
        fs::write(log(directory.path()), &content).unwrap();
        assert_eq!(open(directory.path()).record(event()).await.unwrap().sequence(), 3, "{torn:?}");
        assert!(fs::read(log(directory.path())).unwrap().starts_with(&content));
        let repair = &records(directory.path()).into_iter().find(|record| record["sequence"] == 2).unwrap();
        assert_eq!(repair["action"], "repair_torn_record");
        assert_eq!(open(directory.path()).record(event()).await.unwrap().sequence(), 4);
        // What was torn is part of the trail now.
        let text = fs::read(log(directory.path())).unwrap();
        let without: Vec<u8> =
            [&text[..content.len() - torn.len()], &text[content.len() + usize::from(!torn.ends_with(b"\n"))..]]
                .concat();
        fs::write(log(directory.path()), without).unwrap();
        fs::remove_file(directory.path().join("audit.state")).unwrap();
        assert!(refusal(directory.path()).contains("accounts for torn bytes that are not there"));
    }
}

#[tokio::test]
async fn a_record_whose_newline_alone_is_missing_counts() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 2, 1).await;
    let content = fs::read(log(directory.path())).unwrap();
    fs::write(log(directory.path()), &content[..content.len() - 1]).unwrap();
    assert_eq!(open(directory.path()).record(event()).await.unwrap().sequence(), 3);
    assert!(fs::read(log(directory.path())).unwrap().starts_with(&content));
}

#[tokio::test]
async fn what_no_crash_does_is_refused_and_located() {
    type Damage = fn(&Path);
    fn edit(directory: &Path, change: impl FnOnce(&mut Vec<String>)) {
        let text = fs::read_to_string(log(directory)).unwrap();
        let mut lines: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
        change(&mut lines);
        fs::write(log(directory), lines.join("\n") + "\n").unwrap();
    }
    let damages: [(Damage, &str); 7] = [
        (|d| edit(d, |lines| drop(lines.remove(3))), "record 5 where 4 must follow"),
        (|d| edit(d, |lines| lines.swap(3, 4)), "record 5 where 4 must follow"),
        (|d| edit(d, |lines| lines.insert(3, lines[2].clone())), "record 3 where 4 must follow"),
        (|d| edit(d, |lines| lines[3] = "garbage".into()), "record 5 where 4 must follow"),
        (|d| edit(d, |lines| lines.insert(3, "garbage".into())), "that are no record, and record 4 does not account"),
        (|d| edit(d, |lines| lines.truncate(1)), "but the file ends before"),
        (|d| fs::remove_file(log(d)).unwrap(), "is missing"),
    ];
    for (damage, says) in damages {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path(), 6, 2).await;
        damage(directory.path());
        let refusal = refusal(directory.path());
        assert!(refusal.contains(says) && refusal.contains(OPEN), "{says}: {refusal}");
    }
}

#[tokio::test]
async fn without_a_saved_state_everything_is_read_and_compared_with_the_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 5, 4).await;
    fs::remove_file(directory.path().join("audit.state")).unwrap();
    assert_eq!(open(directory.path()).record(event()).await.unwrap().sequence(), 6);
    let text = fs::read_to_string(log(directory.path())).unwrap();
    fs::write(log(directory.path()), text.replacen("service_started", "service_stopped", 1)).unwrap();
    let refusal = refusal(directory.path());
    assert!(refusal.contains("the records up to 4 are not those that were signed in"), "{refusal}");
}

#[tokio::test]
async fn a_closed_file_that_is_gone_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let audit = open(directory.path());
    audit.record(event()).await.unwrap();
    let closed = audit.rotate().await.unwrap().unwrap();
    audit.record(event()).await.unwrap();
    sign(&audit).await;
    drop(audit);
    open(directory.path());
    fs::rename(&closed, directory.path().join("elsewhere")).unwrap();
    let refusal = refusal(directory.path());
    assert!(
        refusal.contains("is missing") && refusal.contains(closed.file_name().unwrap().to_str().unwrap()),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_start_after_a_rotation_that_was_never_signed_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let audit = open(directory.path());
    audit.record(event()).await.unwrap();
    sign(&audit).await;
    audit.record(event()).await.unwrap();
    let closed = audit.rotate().await.unwrap().unwrap();
    audit.record(event()).await.unwrap();
    drop(audit);
    let mut opened = open_with(&config(directory.path())).unwrap();
    assert_eq!(opened.audit.record(event()).await.unwrap().sequence(), 4);
    // Its checkpoint is still wanted.
    let closing = opened.closings.try_recv().unwrap();
    assert_eq!((closing.segment, closing.position.tree.size()), (closed, 2));
}

#[tokio::test]
async fn a_removed_file_stops_the_trail() {
    let directory = tempfile::tempdir().unwrap();
    let audit = open(directory.path());
    audit.record(event()).await.unwrap();
    fs::remove_file(log(directory.path())).unwrap();
    assert_eq!(audit.record(event()).await.err(), Some(Error::Stopped(Stop::FileLost)));
    assert_eq!(audit.record_signature(&mut [event()], [0; 32]).await.err(), Some(Error::Stopped(Stop::FileLost)));
    assert_eq!(audit.trouble(), Err(Error::Stopped(Stop::FileLost)));
}

#[tokio::test]
async fn a_second_writer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _audit = open(directory.path());
    assert!(matches!(try_open(&config(directory.path())), Err(OpenError::Locked { .. })));
}

#[tokio::test]
async fn a_trail_tells_whether_keys_ever_existed() {
    let directory = tempfile::tempdir().unwrap();
    assert!(!mentions_keys(directory.path()).unwrap());
    let audit = open(directory.path());
    audit.record(event()).await.unwrap();
    assert!(!mentions_keys(directory.path()).unwrap());
    audit.record(Event::of_service(EventType::KeyGenerated, "generate", "k", now())).await.unwrap();
    assert!(mentions_keys(directory.path()).unwrap());
}

#[tokio::test]
async fn what_was_announced_gets_an_outcome_in_any_case() {
    let directory = tempfile::tempdir().unwrap();
    let audit = open(directory.path());
    let announced = |resource: &str| Event::of_service(EventType::KeyRotated, "rotate", resource, now());
    audit.intend(announced("one")).await.unwrap().conclude(announced("one")).await.unwrap();
    drop(audit.intend(announced("two")).await.unwrap());
    // A crash: nobody sees the end of this one, not even its drop.
    std::mem::forget(audit.intend(announced("three")).await.unwrap());
    sign(&audit).await;
    std::mem::forget(audit.intend(announced("four")).await.unwrap());
    drop(audit);
    // The forgotten intents hold the writer: the files are what the crash left.
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(directory.path()).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    open(copy.path()).record(event()).await.unwrap();
    open(copy.path()).record(event()).await.unwrap();
    let told: Vec<_> = records(copy.path())
        .iter()
        .filter(|record| record["type"] == "key_rotated")
        .map(|record| {
            format!("{} {} {}", record["resource"], record["outcome"], record["details"]["intent_sequence"])
                .replace('"', "")
        })
        .collect();
    let expected = [
        "one pending null",
        "one success 1",
        "two pending null",
        "two unknown 3",
        "three pending null",
        "four pending null",
        "three unknown 5",
        "four unknown 6",
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn files_are_closed_by_size_and_by_age() {
    let directory = tempfile::tempdir().unwrap();
    let audit = open_with(&Config { rotate_bytes: 4096, ..config(directory.path()) }).unwrap().audit;
    for _ in 0..30 {
        audit.record(event()).await.unwrap();
    }
    drop(audit);
    let files = segment::list(directory.path()).unwrap();
    assert!(files.len() > 2, "{files:?}");
    let config = Config { rotate_age: Duration::from_secs(1), ..config(directory.path()) };
    let audit = open_with(&config).unwrap().audit;
    audit.record(event()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while segment::list(directory.path()).unwrap().len() == files.len() {
        assert!(Instant::now() < deadline, "an old file is never closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(audit.record(event()).await.unwrap().sequence(), 32);
}

fn keyed(kind: EventType, key: &str, second: i64) -> Event {
    let at = now().plus_seconds(second);
    Event::of_service(kind, "sign", format!("resource {second}"), at)
        .by(&format!("actor {}", second % 7))
        .detail("key_id", key)
}

async fn found(index: &Index, filter: Filter, newest_first: bool) -> Vec<u64> {
    index.caught_up().await.unwrap();
    let (mut cursor, mut all) = (None, Vec::new());
    loop {
        let query = Query { filter: filter.clone(), limit: 7, newest_first, cursor };
        let page = index.search(&query).unwrap();
        all.extend(page.records.iter().map(|line| filter::Facts::parse(line).unwrap().sequence));
        cursor = page.next;
        if cursor.is_none() {
            return all;
        }
    }
}

#[tokio::test]
async fn a_search_before_the_first_or_after_the_last_record_finds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open_with(&config(directory.path())).unwrap();
    opened.audit.record(keyed(EventType::KeyAccessed, "veid-signer:1", 1)).await.unwrap();
    opened.index.caught_up().await.unwrap();
    for (cursor, newest_first) in [(0, true), (1, true), (1, false), (u64::MAX, false)] {
        let query = Query { filter: Filter::default(), limit: 7, newest_first, cursor: Some(cursor) };
        assert!(opened.index.search(&query).unwrap().records.is_empty(), "{cursor} {newest_first}");
    }
}

#[tokio::test]
async fn a_search_finds_what_a_reading_of_all_records_finds() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open_with(&Config { rotate_bytes: 4096, ..config(directory.path()) }).unwrap();
    for second in 0..60 {
        let kind = if second % 3 == 0 { EventType::KeyAccessed } else { EventType::AttestationSigned };
        opened.audit.record(keyed(kind, if second % 5 == 0 { "s:1" } else { "s:2" }, second)).await.unwrap();
    }
    let filters = [
        Filter::default(),
        Filter { event_type: Some(EventType::KeyAccessed), ..Filter::default() },
        Filter { key_id: Some("s:1".into()), ..Filter::default() },
        Filter {
            key_id: Some("s:1".into()),
            event_type: Some(EventType::KeyAccessed),
            actor: Some("actor 2".into()),
            ..Filter::default()
        },
        Filter { resource: Some("resource 33".into()), ..Filter::default() },
        Filter { severity: Some(Severity::Critical), ..Filter::default() },
        Filter { since: Some(now().plus_seconds(20)), until: Some(now().plus_seconds(30)), ..Filter::default() },
        Filter { since: Some(now().plus_seconds(58)), outcome: Some(Outcome::Success), ..Filter::default() },
        Filter { until: Some(now().plus_seconds(-1)), ..Filter::default() },
    ];
    let mut text = Vec::new();
    for filter in filters {
        text.clear();
        export(directory.path(), &filter, Format::JsonLines, &mut text).unwrap();
        let mut expected: Vec<_> =
            text.split(|b| *b == b'\n').filter_map(filter::Facts::parse).map(|facts| facts.sequence).collect();
        assert_eq!(found(&opened.index, filter.clone(), false).await, expected, "{filter:?}");
        expected.reverse();
        assert_eq!(found(&opened.index, filter.clone(), true).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn an_index_that_is_missing_or_does_not_fit_is_made_anew() {
    type Damage = fn(&Path);
    let directory = tempfile::tempdir().unwrap();
    let opened = open_with(&config(directory.path())).unwrap();
    for second in 0..20 {
        opened.audit.record(keyed(EventType::KeyAccessed, "s:1", second)).await.unwrap();
    }
    opened.index.caught_up().await.unwrap();
    let root = opened.index.root(20).unwrap();
    drop(opened);
    let damages: [Damage; 5] = [
        |_| {},
        |directory| fs::remove_file(directory.join("audit.index")).unwrap(),
        |directory| fs::write(directory.join("audit.nodes"), vec![0; 32 * 38]).unwrap(),
        |directory| fs::write(directory.join("audit.index"), "not a database".repeat(1000)).unwrap(),
        |directory| fs::File::options().write(true).open(directory.join("audit.nodes")).unwrap().set_len(64).unwrap(),
    ];
    for damage in damages {
        drop(open_with(&config(directory.path())).unwrap());
        damage(directory.path());
        let opened = open_with(&config(directory.path())).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while opened.index.caught_up().await.is_err() || opened.index.root(20).ok() != Some(root) {
            assert!(Instant::now() < deadline, "the index is never made");
        }
        assert_eq!(found(&opened.index, Filter::default(), false).await, (1..=20).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_index_that_is_removed_while_it_is_used_is_made_anew() {
    for gone in [&["audit.index", "audit.index-wal", "audit.index-shm"][..], &["audit.nodes"][..]] {
        let directory = tempfile::tempdir().unwrap();
        let opened = open_with(&config(directory.path())).unwrap();
        for second in 0..20 {
            opened.audit.record(keyed(EventType::KeyAccessed, "s:1", second)).await.unwrap();
        }
        opened.index.caught_up().await.unwrap();
        assert_eq!(found(&opened.index, Filter::default(), false).await.len(), 20);
        let root = opened.index.root(20).unwrap();
        for name in gone {
            fs::remove_file(directory.path().join(name)).unwrap();
        }
        opened.audit.record(keyed(EventType::KeyAccessed, "s:1", 20)).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let query = Query { filter: Filter::default(), limit: 100, newest_first: false, cursor: None };
        while opened.index.search(&query).map_or(0, |page| page.records.len()) != 21
            || opened.index.root(20).ok() != Some(root)
        {
            assert!(Instant::now() < deadline, "{gone:?} is never made");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn proofs_hold_against_the_signed_head() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open_with(&config(directory.path())).unwrap();
    let mut old = None;
    for second in 0..23 {
        opened.audit.record(keyed(EventType::KeyAccessed, "s:1", second)).await.unwrap();
        if second == 9 {
            old = Some(sign(&opened.audit).await);
        }
    }
    let (old, head) = (old.unwrap(), sign(&opened.audit).await);
    opened.index.caught_up().await.unwrap();
    for sequence in 1..=head.size {
        let (line, path) =
            (opened.index.record(sequence).unwrap(), opened.index.inclusion(sequence, head.size).unwrap());
        assert!(merkle::verify_inclusion(&merkle::leaf_hash(&line), sequence - 1, head.size, &path, &head.root));
    }
    let path = opened.index.consistency(old.size, head.size).unwrap();
    assert!(merkle::verify_consistency((old.size, &old.root), (head.size, &head.root), &path));
    assert!(matches!(opened.index.inclusion(24, 24), Err(IndexError::Beyond { records: 23 })));
    assert!(matches!(opened.index.inclusion(0, 23), Err(IndexError::Beyond { .. })));
}

#[tokio::test]
async fn what_is_noted_stands_before_what_is_waited_for_and_is_written_without_it_too() {
    let directory = tempfile::tempdir().unwrap();
    let audit = open(directory.path());
    let before = audit.size();
    for _ in 0..100 {
        audit.note(&event()).unwrap();
    }
    assert_eq!(audit.record(event()).await.unwrap().sequence(), before + 101);
    audit.note(&event()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while audit.size() < before + 102 {
        assert!(Instant::now() < deadline, "a note by itself was never written");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    audit.note(&event()).unwrap();
    drop(audit);
    assert_eq!(open(directory.path()).size(), before + 103, "what is noted last is written before the end");
}
