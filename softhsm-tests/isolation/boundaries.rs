//! What the process that holds the module has, and has not; and how it ends.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::support::{
    appliance::{Appliance, BINARY},
    eventually,
    guarded::Guarded,
    redis::RedisServer,
    signer::Signer,
    site::Site,
    softhsm::PIN,
    tool,
};

fn of(pid: u32, file: &str) -> String {
    tool::text(&fs::read(format!("/proc/{pid}/{file}")).unwrap())
}

fn is_gone(pid: u32) -> Option<()> {
    (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
}

#[test]
fn it_has_no_more_than_it_needs() {
    let signer = Signer::new();
    let pid = signer.token_process();
    assert!(of(pid, "status").contains("NoNewPrivs:\t1"));
    let core = of(pid, "limits").lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let environment = of(pid, "environ");
    let names: Vec<_> = environment.split_terminator('\0').map(|pair| pair.split('=').next().unwrap()).collect();
    assert_eq!(names, ["SOFTHSM2_CONF"], "of all that this test has");
    let inherited = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    let targets: Vec<_> = inherited.filter_map(|link| fs::read_link(link).ok()).collect();
    let foreign = |target: &PathBuf| {
        let text = target.display().to_string();
        text.contains("/audit") || text.contains("/state") || text.ends_with("/pin")
    };
    assert!(!targets.iter().any(foreign), "{targets:?}");
    let sockets: BTreeSet<_> =
        targets.iter().filter(|target| target.to_string_lossy().starts_with("socket:")).collect();
    // The one to the appliance; two more are the runtime's own, for signals.
    assert!(sockets.len() <= 3, "{targets:?}");
    assert!(!of(signer.pid(), "maps").contains("softhsm"), "the appliance itself has loaded the module");
    assert!(of(pid, "maps").contains("softhsm"));
}

/// What the descriptors of a process lead to, but for standard input and output and the kinds that say nothing.
fn descriptors(pid: u32) -> BTreeSet<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    // One may be closed while they are listed.
    let targets = links.filter_map(|link| Some(fs::read_link(link).ok()?.display().to_string()));
    targets.filter(|target| !target.starts_with("anon_inode:") && target != "/dev/null").collect()
}

/// With TLS, a socket in the file system, an audit trail and nonces in Redis.
#[test]
fn no_descriptor_of_the_appliance_is_one_of_its() {
    let redis = RedisServer::start(&[]);
    let tables = format!("[redis]\nurl = \"{}\"\n", redis.url());
    let guarded = Guarded::with("operator", "", &tables);
    let appliance = guarded.appliance();
    let (ours, its) = (descriptors(appliance.pid()), descriptors(appliance.token_process()));
    assert!(ours.iter().any(|target| target.ends_with("/audit/audit.log")), "{ours:?}");
    assert!(ours.iter().filter(|target| target.starts_with("socket:")).count() > 4, "{ours:?}");
    let shared: Vec<_> = ours.intersection(&its).filter(|target| !target.contains("/log-")).collect();
    assert!(shared.is_empty(), "but for standard error: {shared:?}");
}

#[test]
fn what_whoever_starts_the_appliance_has_left_open_is_not_passed_on() {
    let site = Site::with_key();
    let left = site.path("left-open");
    fs::write(&left, "not for the module").unwrap();
    let serve = site.command("serve", &site.config());
    let mut command = Command::new("sh");
    command.args(["-c", "exec 7<>\"$0\" 9<\"$0\" && exec \"$@\""]);
    command.arg(&left).arg(serve.get_program()).args(serve.get_args());
    command.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let appliance =
        Appliance::start(command, site.home.path()).unwrap_or_else(|(status, log)| panic!("{status} {log}"));
    let left = left.display().to_string();
    assert!(descriptors(appliance.pid()).contains(&left), "it is left open");
    let first = appliance.token_process();
    assert!(!descriptors(first).contains(&left), "{:?}", descriptors(first));
    appliance.signal_token_process("KILL");
    let next = appliance.another_token_process(first);
    eventually("signing resumes", || (appliance.try_attest().status == 200).then_some(()));
    assert!(!descriptors(next).contains(&left), "{:?}", descriptors(next));
}

#[test]
fn it_writes_only_where_it_may_and_signals_nobody() {
    let (site, faults) = Site::with_key().faulty();
    assert_eq!(faults.calls("C_Sign"), 0, "which makes the file that it counts in");
    site.edit_config("[token]", &format!("[token]\nwritable = [{:?}, {:?}]", site.token.tokens(), faults.counts()));
    let appliance = site.serve().unwrap();
    let rotation = json!({ "reason": "scheduled", "initiated_by": "a test" });
    assert_eq!(appliance.post("/api/v1/keys/rotate", &rotation).status, 201, "its own directory it writes to");
    let planted = site.path("planted");
    for trespass in [format!("write={}", planted.display()), format!("signal={}", appliance.pid())] {
        let before = faults.calls("C_Sign");
        faults.set(&format!("C_Sign {trespass}"));
        assert_eq!(appliance.try_attest().status, 200);
        assert!(faults.calls("C_Sign") > before, "it was tried");
        faults.clear();
    }
    assert!(!planted.exists());
    assert_eq!(appliance.try_attest().status, 200, "nobody was told to end");
}

#[test]
fn a_place_to_write_that_is_not_there_is_named() {
    let site = Site::with_key();
    site.edit_config("[token]", "[token]\nwritable = [\"/nowhere/at/all\"]");
    site.refuse("serve").with(78, "token.writable");
    site.refuse("serve").with(78, "there is no /nowhere/at/all");
}

#[test]
fn the_module_is_in_the_appliance_when_the_configuration_says_so() {
    let signer = Signer::with_lines("[token]", "isolation = false", "", "[fleet]\nsingle = true");
    assert!(of(signer.pid(), "maps").contains("softhsm"));
    assert_eq!(crate::support::own_token::process_of(signer.pid()), None);
}

#[test]
fn it_ends_with_the_appliance_however_that_ends() {
    for signal in ["KILL", "ABRT", "TERM"] {
        let mut signer = Signer::new();
        let pid = signer.token_process();
        signer.signal(signal);
        signer.wait_for_end();
        eventually(&format!("after {signal}"), || is_gone(pid));
        signer.start_again().unwrap();
        assert_eq!(signer.try_attest().status, 200);
    }
}

#[test]
fn signals_that_are_meant_for_the_appliance_do_not_end_it() {
    let signer = Signer::new();
    let pid = signer.token_process();
    for signal in ["TERM", "INT", "HUP", "USR1"] {
        signer.signal_token_process(signal);
    }
    assert_eq!(signer.try_attest().status, 200);
    assert_eq!(signer.token_process(), pid);
}

#[test]
fn the_pin_is_nowhere_in_the_appliance_and_not_in_what_the_process_shows() {
    let site = Site::with_key();
    let unusual = "4917-PIN-of-this-test-8253";
    site.token.change_pin(unusual);
    site.token.write_pin(unusual);
    let appliance = site.serve().unwrap();
    let held = appliance.token_process();
    // Once more through another process.
    appliance.signal_token_process("KILL");
    let held = appliance.another_token_process(held);
    eventually("signing resumes", || (appliance.try_attest().status == 200).then_some(()));
    for pid in [appliance.pid(), held] {
        for file in ["cmdline", "environ", "comm", "status"] {
            assert!(!of(pid, file).contains(unusual), "{file}");
        }
    }
    assert!(!appliance.log().contains(unusual) && !appliance.audit_log().contains(unusual));
    let (read, found) = search_memory(appliance.pid(), unusual.as_bytes());
    println!("{read} bytes of memory were searched");
    assert!(read > 1_000_000 && !found, "the PIN is in the appliance's memory ({read} bytes read)");
    let (_, left) = search_memory(held, unusual.as_bytes());
    println!("in the process that logged in with it: {left}");
    assert!(!left, "the PIN is in the memory of the process that holds the module");
    assert_ne!(unusual, PIN);
}

/// How much memory could be read and written, and whether these bytes are in it. As root.
fn search_memory(pid: u32, wanted: &[u8]) -> (usize, bool) {
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut read, mut found) = (0, false);
    for line in of(pid, "maps").lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw")) {
        let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(number(end) - number(begin)).unwrap()];
        if memory.seek(SeekFrom::Start(number(begin))).is_err() || memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        read += bytes.len();
        found |= bytes.windows(wanted.len()).any(|window| window == wanted);
    }
    (read, found)
}

#[test]
fn an_end_of_the_process_never_counts_as_a_refused_pin() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    let mut old = appliance.token_process();
    for fault in ["C_Login crash times=1", "C_Login fail=CKR_FUNCTION_FAILED times=1", "C_Initialize crash times=1"] {
        faults.set(fault);
        appliance.signal_token_process("KILL");
        // Those that crash on their way are seen by nobody; the rule holds once for each process.
        eventually(fault, || (faults.calls("C_Initialize") > 0).then_some(()));
        std::thread::sleep(std::time::Duration::from_millis(300));
        faults.clear();
        old = appliance.another_token_process(old);
        eventually(fault, || (appliance.try_attest().status == 200).then_some(()));
    }
    let latch = fs::read_to_string(site.path("state/pin-refused.json")).unwrap_or_default();
    assert!(!latch.contains("hash"), "{latch}");
}

#[test]
fn a_person_who_starts_it_is_told_that_it_is_not_for_people() {
    let output = Command::new(BINARY).arg("hold-token").stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(tool::text(&output.stderr).contains("started by `serve`"), "{}", tool::text(&output.stderr));
    let help = Command::new(BINARY).arg("--help").output().unwrap();
    assert!(!tool::text(&help.stdout).contains("hold-token"));
}
