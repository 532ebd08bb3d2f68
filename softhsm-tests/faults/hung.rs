//! Calls that hang: nothing can cancel them, and they hurt nobody else.

use std::{
    os::unix::net::UnixDatagram,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::json;

use crate::support::{
    appliance::{Appliance, attestation_request},
    client::Client,
    eventually,
    faults::Faults,
    site::Site,
};

/// Longer than the deadline of a call by what a request takes beside it.
const DEADLINE: Duration = Duration::from_secs(1);
const AT_MOST: Duration = Duration::from_millis(1500);

fn site(token: &str) -> (Site, Faults) {
    let (site, faults) = Site::with_key().faulty();
    // In the appliance itself: what becomes of a process of the module's own, softhsm-tests/isolation/ shows.
    site.edit_config("[token]", &format!("[token]\nisolation = false\ncall_deadline = \"1s\"\n{token}"));
    (site, faults)
}

/// What came of requests made by several clients at once.
#[derive(Default)]
struct Answers {
    signed: Vec<Duration>,
    refused: Vec<Duration>,
}

impl Answers {
    fn p99(&mut self) -> Duration {
        self.signed.sort();
        self.signed[self.signed.len() * 99 / 100]
    }
}

/// Asks for attestations from several threads, until enough was signed.
fn ask(appliance: &Appliance, clients: usize, enough: usize) -> Answers {
    let (answers, signed, stop) = (Mutex::new(Answers::default()), AtomicUsize::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let client = Client::new(&appliance.api);
                while !stop.load(Ordering::Relaxed) {
                    assert!(begun.elapsed() < Duration::from_secs(180), "too slow");
                    let nonce = client.nonce().unwrap();
                    let begun = Instant::now();
                    let answer = client.post("/api/v1/attestations", &attestation_request(&nonce)).unwrap();
                    let elapsed = begun.elapsed();
                    if answer.status == 200 {
                        answers.lock().signed.push(elapsed);
                        stop.fetch_or(signed.fetch_add(1, Ordering::Relaxed) >= enough, Ordering::Relaxed);
                    } else {
                        assert_eq!((answer.status, answer.header("retry-after").is_empty()), (503, false));
                        answers.lock().refused.push(elapsed);
                    }
                }
            });
        }
    });
    answers.into_inner()
}

#[test]
fn one_hung_call_in_a_hundred_keeps_no_other_waiting() {
    let (site, faults) = site("hung_calls = 100");
    let appliance = site.serve().unwrap();
    ask(&appliance, 4, 300);
    let mut quiet = ask(&appliance, 4, 3000);
    faults.set("C_Sign hang every=100");
    let mut beside = ask(&appliance, 4, 3000);
    println!("p99 quiet {:?}, beside {} hung calls {:?}", quiet.p99(), beside.refused.len(), beside.p99());
    assert!((20..100).contains(&beside.refused.len()), "{}", beside.refused.len());
    assert!(beside.refused.iter().all(|elapsed| *elapsed < AT_MOST), "{:?}", beside.refused);
    assert!(beside.p99() < quiet.p99() * 2, "{:?} {:?}", quiet.p99(), beside.p99());
    // They end after all: whoever took their place goes on, and nobody is left over.
    faults.clear();
    eventually("all calls have ended", || (threads(&appliance, "token-sign") == 2).then_some(()));
    appliance.attest();
    appliance.stop();
}

fn threads(appliance: &Appliance, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", appliance.pid())).unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    names.filter(|found| found.trim() == name).count()
}

#[test]
fn when_all_calls_hang_requests_are_refused_in_time_and_the_process_ends() {
    let (site, faults) = site("hung_calls = 4");
    let appliance = site.serve().unwrap();
    appliance.attest();
    faults.set("C_Sign hang");
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let answer = appliance.try_attest();
                assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{}", answer.text());
                assert!(begun.elapsed() < DEADLINE + AT_MOST, "{:?}", begun.elapsed());
            });
        }
    });
    let trail = appliance.home.join("audit/audit.log");
    let status = appliance.wait();
    assert_eq!(status.code(), Some(69), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let trail = std::fs::read_to_string(trail).unwrap();
    assert!(trail.contains("token_stuck"), "{trail}");
    // A new process has a working module again.
    faults.clear();
    site.serve().unwrap().attest();
}

#[test]
fn fewer_hung_calls_than_the_bound_end_nothing() {
    let (site, faults) = site("hung_calls = 4");
    let appliance = site.serve().unwrap();
    faults.set("C_Sign hang times=3");
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(appliance.try_attest().status, 503));
        }
    });
    for _ in 0..20 {
        appliance.attest();
    }
    assert_eq!(appliance.get("/readyz").status, 200);
    assert!(appliance.log().contains("a call to the token does not end"));
    // What hangs does not keep it from ending when it is told to.
    appliance.stop();
}

#[test]
fn a_generation_that_hangs_keeps_nobody_from_signing() {
    let (site, faults) = site("");
    let appliance = site.serve().unwrap();
    faults.set("C_GenerateKeyPair hang");
    thread::scope(|scope| {
        let generated = scope.spawn(|| appliance.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" })));
        eventually("it hangs", || (faults.calls("C_GenerateKeyPair") > 1).then_some(()));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            appliance.attest();
        }
        faults.clear();
        let generated = generated.join().unwrap();
        assert_eq!(generated.status, 201, "{}", generated.text());
    });
}

/// What systemd would hear.
fn watchdog_messages(socket: &UnixDatagram) -> usize {
    socket.set_nonblocking(true).unwrap();
    let mut messages = 0;
    let mut buffer = [0; 256];
    while let Ok(length) = socket.recv(&mut buffer) {
        messages += usize::from(buffer[..length].starts_with(b"WATCHDOG=1"));
    }
    messages
}

#[test]
fn systemd_hears_nothing_any_more_from_a_process_whose_token_hangs() {
    let (site, faults) = site("hung_calls = 1");
    site.edit_config("[http]", "[http]\ndrain = \"2s\"");
    let path = site.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let site = site.with_environment("NOTIFY_SOCKET", &path).with_environment("WATCHDOG_USEC", "200000".as_ref());
    let appliance = site.serve().unwrap();
    eventually("it says that it is alive", || (watchdog_messages(&socket) > 0).then_some(()));
    faults.set("C_Sign hang\nC_GenerateKeyPair hang");
    let client = Client::new(&appliance.api);
    thread::scope(|scope| {
        // In progress for longer than the drain: meanwhile it must not say that it is alive.
        scope.spawn(|| client.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" })));
        eventually("it hangs", || (faults.calls("C_GenerateKeyPair") > 1).then_some(()));
        assert_eq!(appliance.try_attest().status, 503);
        eventually("it has noticed", || appliance.log().contains("can only be used again").then_some(()));
        watchdog_messages(&socket);
        let begun = Instant::now();
        assert_eq!((appliance.wait().code(), watchdog_messages(&socket)), (Some(69), 0));
        assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    });
}
