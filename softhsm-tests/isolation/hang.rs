//! The process that holds the module stands still, or its module does.

use std::time::{Duration, Instant};

use crate::support::{
    appliance::{Answer, Appliance},
    eventually,
    signer::{Signer, key},
    site::Site,
};

/// `token.call_deadline`, and what a slow machine adds.
const DEADLINE: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(3);

/// A request that is refused in time.
fn refused(appliance: &Appliance) -> Answer {
    let begun = Instant::now();
    let answer = appliance.try_attest();
    assert!(begun.elapsed() < DEADLINE + SLACK, "{:?}", begun.elapsed());
    answer
}

#[test]
fn a_process_that_stands_still_is_killed_and_another_takes_its_place() {
    let signer = Signer::new();
    let (pid, begun) = (signer.pid(), Instant::now());
    let stopped = signer.signal_token_process("STOP");
    let answer = refused(&signer);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(signer.get("/livez").status, 200);
    signer.another_token_process(stopped);
    eventually("signing resumes", || (signer.try_attest().status == 200).then_some(()));
    println!("signing again {:?} after the stop", begun.elapsed());
    assert_eq!((signer.pid(), signer.signing_key()), (pid, key(1)));
    assert!(signer.log().contains("does not answer: it is killed"));
}

#[test]
fn a_process_in_which_every_call_hangs_ends_and_another_takes_its_place() {
    let (site, faults) = Site::with_key().faulty();
    site.edit_config("[token]", "[token]\nhung_calls = 3");
    let appliance = site.serve().unwrap();
    assert_eq!(appliance.try_attest().status, 200);
    let old = appliance.token_process();
    faults.set("C_Sign hang");
    let begun = Instant::now();
    // As many as may hang.
    let answers = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..3).map(|_| scope.spawn(|| refused(&appliance).status)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(answers, [503; 3]);
    // Only then: a call that ends late has not hung.
    appliance.another_token_process(old);
    faults.clear();
    eventually("signing resumes", || (appliance.try_attest().status == 200).then_some(()));
    println!("signing again {:?} after the first call hung", begun.elapsed());
    assert!(appliance.log().contains("calls into the module hang"));
}

#[test]
fn one_call_that_hangs_keeps_the_process_and_the_others() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    let old = appliance.token_process();
    faults.set("C_Sign hang times=1");
    assert_eq!(refused(&appliance).status, 503);
    for _ in 0..20 {
        assert_eq!(appliance.try_attest().status, 200);
    }
    assert_eq!(appliance.token_process(), old);
    faults.clear();
}

#[test]
fn a_process_that_hangs_at_the_end_does_not_keep_the_appliance() {
    let signer = Signer::new();
    let (stopped, begun) = (signer.signal_token_process("STOP"), Instant::now());
    signer.signal("TERM");
    let mut signer = signer;
    let ended = signer.wait_for_end();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(ended.code().is_some(), "{ended}");
    eventually("it is gone", || (!std::path::Path::new(&format!("/proc/{stopped}")).exists()).then_some(()));
}
