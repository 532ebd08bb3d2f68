//! The process that holds the module ends in the middle of its work.

use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    audit::{
        kills::{load, recorded},
        trail::verifies,
    },
    support::{
        appliance::Appliance,
        eventually,
        signer::{Signer, key},
        site::Site,
    },
};

/// How long until signatures flow again.
fn until_signing(appliance: &Appliance) -> Duration {
    let begun = Instant::now();
    eventually("signing resumes", || (appliance.try_attest().status == 200).then_some(()));
    begun.elapsed()
}

/// What the trail says of the token. It is read on from where it was left: it grows long.
struct Noted {
    trail: File,
    unread: Vec<u8>,
    lost: usize,
    back: usize,
}

impl Noted {
    fn new(directory: &Path) -> Self {
        let trail = File::open(directory.join("audit.log")).unwrap();
        Self { trail, unread: Vec::new(), lost: 0, back: 0 }
    }

    fn read_on(&mut self) -> (usize, usize) {
        self.trail.read_to_end(&mut self.unread).unwrap();
        // What follows the last newline is being written right now.
        let whole = self.unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8(self.unread.drain(..whole).collect()).unwrap();
        self.lost += text.matches("\"action\":\"token_lost\"").count();
        self.back += text.matches("\"action\":\"token_back\"").count();
        (self.lost, self.back)
    }
}

/// How soon a process that ended must have been replaced, and what a busy machine adds.
const SERVICE: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_secs(1);

/// Ends the load when dropped.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is received is on record, one loss and one return each, and the appliance never ends.
fn kills_under_load(rounds: usize) {
    // What is refused meanwhile leaves nonces unspent.
    let signer = Signer::with("", "[fleet]\nsingle = true\n[nonce]\noutstanding_per_issuer = 100000");
    let (pid, stop) = (signer.pid(), AtomicBool::new(false));
    let (api, appliance) = (signer.api.clone(), &*signer);
    let mut noted = Noted::new(&signer.home().join("audit"));
    let (received, slowest) = thread::scope(|scope| {
        let loading = scope.spawn(|| load(&api, &stop));
        let _ended_whatever_happens = Ended(&stop);
        let mut slowest = Vec::new();
        for round in 1..=rounds {
            thread::sleep(Duration::from_millis(50 + getrandom::u64().unwrap() % 300));
            // As a module that aborts ends it, and as the kernel does that is out of memory.
            let old = appliance.signal_token_process(if round % 2 == 0 { "ABRT" } else { "KILL" });
            slowest.push(until_signing(appliance));
            appliance.another_token_process(old);
            eventually("loss and return are recorded", || (noted.read_on() == (round, round)).then_some(()));
        }
        slowest.sort();
        stop.store(true, Ordering::Relaxed);
        (loading.join().unwrap(), slowest)
    });
    let (half, all) = (slowest[slowest.len() / 2], slowest[slowest.len() - 1]);
    println!("{rounds} ends, {} signatures received; signing again after {half:?}, at most {all:?}", received.len());
    assert!(all < SERVICE + SLACK, "{all:?}");
    assert!(received.len() > rounds * 5, "too little was signed to mean anything");
    assert_eq!(signer.pid(), pid);
    let directory = signer.home().join("audit");
    let known = recorded(&directory);
    let missing = received.iter().filter(|digest| !known.contains_key(*digest)).count();
    assert_eq!(missing, 0, "of {} received signatures", received.len());
    assert_eq!(signer.metric("virtengine_verification_token_process_restarts_total"), rounds.to_string());
    assert!(signer.get("/healthz").text().contains(&format!("started again {rounds} times")));
    assert_eq!((signer.signing_key(), signer.states()), (key(1), vec!["active".to_owned()]));
    assert_eq!(noted.read_on(), (rounds, rounds));
    verifies(&directory);
}

#[test]
fn a_process_that_ends_under_load_loses_no_record_and_another_takes_its_place() {
    kills_under_load(4);
}

#[test]
#[ignore = "long: run by make test-long"]
fn a_hundred_processes_end_under_load() {
    kills_under_load(100);
}

#[test]
fn a_module_that_crashes_takes_only_its_process_with_it() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    let pid = appliance.pid();
    for round in 1..=3 {
        // Once in a call of whatever signs next; the next process makes the same call and does not crash.
        faults.set("C_Sign crash times=1");
        let old = appliance.token_process();
        let answer = appliance.try_attest();
        faults.clear();
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        appliance.another_token_process(old);
        let after = until_signing(&appliance);
        println!("round {round}: answered {}, signing again after {after:?}", answer.status);
    }
    assert_eq!(appliance.pid(), pid);
    verifies(&site.path("audit"));
}

#[test]
fn a_call_that_crashes_every_process_is_not_made_for_ever() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    faults.set("C_Sign crash");
    let begun = Instant::now();
    let logins = faults.calls("C_Login");
    while begun.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        let answer = appliance.try_attest();
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.headers.contains_key("retry-after"));
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    }
    // 50 ms, 100 ms, 200 ms … between them.
    let storm = faults.calls("C_Login") - logins;
    assert!(storm < 12, "{storm} logins in {:?}", begun.elapsed());
    assert_eq!(appliance.get("/livez").status, 200);
    faults.clear();
    println!("{storm} logins, signing again after {:?}", until_signing(&appliance));
}
