//! The process that holds the module has no memory left.

use std::{fs, thread};

use serde_json::json;

use crate::support::{appliance::Appliance, client::Client, eventually, site::Site, tool};

/// So much more may it have than it has, in bytes.
fn limit(appliance: &Appliance, more: u64) -> u32 {
    let pid = appliance.token_process();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix(" kB")).unwrap();
    let bytes = (size.trim().parse::<u64>().unwrap() << 10) + more;
    tool::run("prlimit", &["--pid", &pid.to_string(), &format!("--as={bytes}:{bytes}")], &[]);
    pid
}

/// The module loses memory with each signature, until it answers CKR_HOST_MEMORY, which finalizing it and
/// initializing it again does not help.
#[test]
fn a_module_that_has_used_up_its_memory_gets_a_process_with_fresh_memory() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    let (pid, old) = (appliance.pid(), limit(&appliance, 256 << 20));
    faults.set("C_Sign eat=16");
    let mut refused = 0;
    eventually("another process holds the module", || {
        let answer = appliance.try_attest();
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        refused += usize::from(answer.status == 503);
        (appliance.token_process() != old).then_some(())
    });
    println!("{refused} requests were refused");
    for _ in 0..20 {
        appliance.attest();
    }
    assert_eq!(appliance.pid(), pid);
    assert!(appliance.log().contains("another process has taken over"));
}

/// Not a byte more than it has: whatever it does about that, nothing is signed twice, lost or wrong.
#[test]
fn a_process_at_its_memory_limit_takes_nothing_else_with_it() {
    let (site, _faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    let (pid, _) = (appliance.pid(), limit(&appliance, 0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let answer = appliance.try_attest();
                    assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
                }
            });
        }
        let client = Client::new(&appliance.api);
        scope.spawn(move || client.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" })).unwrap());
    });
    eventually("signing goes on", || (appliance.try_attest().status == 200).then_some(()));
    assert_eq!((appliance.pid(), appliance.states().iter().filter(|state| *state == "active").count()), (pid, 1));
    crate::audit::trail::verifies(&site.path("audit"));
}
