//! The token fails under load: every request is answered in time, and signatures flow again soon after.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    recovery::away::Away,
    support::{
        appliance::{Appliance, attestation_request},
        client::Client,
        eventually,
        faults::Faults,
        site::Site,
        softhsm::{MODULE, SoftHsm},
        tool,
    },
};

/// How soon signatures must flow again.
const SOON: Duration = Duration::from_secs(2);

/// The deadline of a call to the token, and what a request takes beside it on a busy machine.
const AT_MOST: Duration = Duration::from_secs(4);

/// A request: when it began, how long it took, what came of it.
type Asked = (Instant, Duration, u16);

/// Has the token fail twice while four clients ask for attestations. `fault` returns when it is over.
fn bear(appliance: &Appliance, fault: impl Fn()) {
    let (asked, stop) = (Mutex::new(Vec::<Asked>::new()), AtomicBool::new(false));
    let ask = || {
        let client = Client::new(&appliance.api);
        // A test that has failed elsewhere does not wait for ever.
        let begun = Instant::now();
        while !stop.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(180) {
            let nonce = client.nonce().unwrap();
            let begun = Instant::now();
            let status = client.post("/api/v1/attestations", &attestation_request(&nonce)).unwrap().status;
            asked.lock().push((begun, begun.elapsed(), status));
        }
    };
    let signed_since = |since: Instant| asked.lock().iter().filter(|(at, _, code)| *at > since && *code == 200).count();
    let mut ends = Vec::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(ask);
        }
        for _ in 0..2 {
            let begun = Instant::now();
            eventually("signatures flow", || (signed_since(begun) > 20).then_some(()));
            fault();
            let end = Instant::now();
            eventually("signatures flow again", || (signed_since(end) > 20).then_some(()));
            ends.push(end);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let asked = asked.into_inner();
    let slowest = asked.iter().map(|(_, elapsed, _)| *elapsed).max().unwrap();
    let refused = asked.iter().filter(|(_, _, status)| *status != 200).count();
    let resumed = |end: &Instant| {
        let after = asked.iter().filter(|(at, _, status)| at > end && *status == 200);
        after.map(|(at, elapsed, _)| (*at + *elapsed).duration_since(*end)).min().unwrap()
    };
    let resumed: Vec<_> = ends.iter().map(resumed).collect();
    println!("{} requests, {refused} refused, slowest {slowest:?}, resumed after {resumed:?}", asked.len());
    assert!(asked.iter().all(|(_, _, status)| matches!(status, 200 | 503)));
    assert!(slowest < AT_MOST, "{slowest:?}");
    assert!(resumed.iter().all(|time| *time < SOON), "{resumed:?}");
    assert_eq!(appliance.states(), ["active"]);
}

/// The module closes every session once, and the login goes with them.
fn close_sessions(faults: &Faults) {
    let made = faults.calls("C_SignInit");
    faults.set("C_SignInit close-sessions times=1");
    eventually("they are closed", || (faults.calls("C_SignInit") > made).then_some(()));
    faults.clear();
}

#[test]
fn all_sessions_closed_under_load() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    bear(&appliance, || close_sessions(&faults));
    assert!(faults.calls("C_Login") <= 4, "{} logins", faults.calls("C_Login"));
}

/// Without the ledger on the token nobody sees that all private objects have gone with the login.
#[test]
fn a_lost_login_is_noticed_where_no_ledger_is_on_the_token() {
    let (site, faults) = Site::new().faulty();
    let ledger = format!("[ledger]\nstore = \"file\"\npath = \"{}\"\n[http]", site.path("ledger").display());
    site.edit_config("[http]", &ledger);
    site.run("init").with(0, "active key");
    let appliance = site.serve().unwrap();
    bear(&appliance, || close_sessions(&faults));
}

#[test]
fn the_token_s_directory_away_for_five_seconds_under_load() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    bear(&appliance, || {
        let away = Away::take(&site.token);
        thread::sleep(Duration::from_secs(5));
        drop(away);
    });
    assert!(faults.calls("C_Login") <= 6, "{} logins", faults.calls("C_Login"));
}

/// `p11-kit server`, which makes a token in another process out of SoftHSM2.
struct Remote {
    child: Child,
}

impl Remote {
    fn start(token: &SoftHsm, socket: &Path) -> Self {
        let _ = fs::remove_file(socket);
        let child = Command::new("p11-kit")
            .args(["server", "--foreground", "--provider", MODULE, "--name"])
            .arg(socket)
            .arg("pkcs11:")
            .envs(token.environment())
            .stdout(Stdio::null())
            // Each client has a process of its own there: they end together.
            .process_group(0)
            .spawn()
            .unwrap();
        eventually("p11-kit listens", || socket.exists().then_some(()));
        Self { child }
    }

    /// Where distributions put the other end.
    fn module() -> PathBuf {
        let found = tool::run("find", &["/usr/lib", "/usr/lib64", "-name", "p11-kit-client.so"], &[]);
        found.lines().next().expect("p11-kit-client.so is missing: run `make test`").into()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        tool::run("kill", &["-KILL", "--", &format!("-{}", self.child.id())], &[]);
        self.child.wait().unwrap();
    }
}

#[test]
fn a_token_s_server_killed_and_started_again_under_load() {
    let site = Site::with_key();
    let socket = site.path("p11-kit");
    let address = format!("unix:path={}", socket.display());
    site.edit_config(MODULE, Remote::module().to_str().unwrap());
    let site = site.with_environment("P11_KIT_SERVER_ADDRESS", address.as_ref());
    let remote = Mutex::new(Some(Remote::start(&site.token, &socket)));
    let appliance = site.serve().unwrap();
    bear(&appliance, || {
        remote.lock().take();
        eventually("signing stops", || (appliance.try_attest().status == 503).then_some(()));
        *remote.lock() = Some(Remote::start(&site.token, &socket));
    });
}
