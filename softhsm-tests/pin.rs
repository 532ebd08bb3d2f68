//! The PIN: tried once, shown nowhere.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::ExitStatusExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{
    appliance::{Answer, Appliance, BINARY, dev_command},
    routes,
    site::Site,
    softhsm::PIN,
    tool,
};

const COMMANDS: [&str; 3] = ["serve", "check", "init"];

/// A PIN that stands where none belongs.
const MISPLACED: &str = "8642971";

#[test]
fn a_wrong_pin_is_tried_exactly_once() {
    let (site, spy) = Site::with_key().spied();
    site.token.write_pin("wrong-pin-000");
    for isolation in [true, false] {
        let already = spy.calls("C_Login");
        if !isolation {
            site.edit_config("[token]", "[token]\nisolation = false");
            site.token.write_pin("another-wrong-pin");
        }
        for (start, command) in ["serve", "serve", "check", "serve", "init", "serve", "serve"].into_iter().enumerate() {
            let refusal = site.refuse(command);
            refusal.with(78, if start == 0 { "is wrong: it was tried once" } else { "it is not tried again" });
            assert!(!refusal.output.contains("wrong-pin"), "{refusal:?}");
            assert_eq!(spy.calls("C_Login"), already + 1, "start {start}: {command}");
        }
        let latch = fs::read_to_string(site.path("state/pin-refused.json")).unwrap();
        assert!(!latch.contains("wrong-pin") && !latch.contains(&hex::encode("wrong-pin")), "{latch}");
    }
    site.token.write_pin(PIN);
    site.run("check").with(0, "logged in");
    assert_eq!(spy.calls("C_Login"), 3);
    assert!(!fs::read_to_string(site.path("state/pin-refused.json")).unwrap().contains("hash"));
}

#[test]
fn a_pin_that_became_right_is_tried_when_somebody_says_so() {
    let (site, spy) = Site::with_key().spied();
    site.token.write_pin("wrong-pin-000");
    site.refuse("serve").with(78, "is wrong: it was tried once");
    site.refuse("serve").with(78, "remove pin-refused.json from the state directory");
    fs::remove_file(site.path("state/pin-refused.json")).unwrap();
    site.refuse("serve").with(78, "is wrong: it was tried once");
    assert_eq!(spy.calls("C_Login"), 2);
}

#[test]
fn a_wrong_pin_is_tried_once_on_an_empty_token_too() {
    let (site, spy) = Site::new().spied();
    site.token.write_pin("wrong-pin-000");
    for command in COMMANDS {
        site.refuse(command).with(78, "the token's user PIN is");
        assert_eq!(spy.calls("C_Login"), 1, "{command}");
    }
    assert!(site.token.object_files().is_empty());
}

#[test]
fn a_pin_file_that_others_can_read_is_refused_before_it_is_tried() {
    let (site, spy) = Site::with_key().spied();
    for mode in [0o640, 0o604, 0o660, 0o644] {
        fs::set_permissions(site.token.path().join("pin"), fs::Permissions::from_mode(mode)).unwrap();
        for command in COMMANDS {
            let refusal = site.refuse(command);
            refusal.with(78, &format!("can be read by others (mode {mode:04o}): make it 0400 or 0600"));
            assert!(!refusal.output.contains(PIN), "{refusal:?}");
        }
    }
    assert_eq!(spy.calls("C_Login"), 0);
}

#[test]
fn a_pin_source_that_is_missing_or_empty_is_refused() {
    let site = Site::with_key();
    let file = site.token.path().join("pin");
    let line = format!("pin_file = \"{}\"", file.display());
    for command in COMMANDS {
        fs::remove_file(&file).unwrap();
        site.refuse(command).with(78, "cannot read secret file");
        site.token.write_pin("");
        site.refuse(command).with(78, "is empty");
        site.edit_config(&line, "");
        site.refuse(command).with(78, "name exactly one of pin_file and pin_credential");
        site.edit_config("[token]", "[token]\npin_credential = \"pin\"");
        site.refuse(command).with(78, "LoadCredential=");
        site.edit_config("pin_credential = \"pin\"", &format!("pin_credential = \"pin\"\n{line}"));
        site.refuse(command).with(78, "name exactly one of pin_file and pin_credential");
        site.edit_config(&format!("\npin_credential = \"pin\"\n{line}"), &format!("\n{line}"));
    }
    site.token.write_pin(PIN);
    site.run("check").with(0, "logged in");
}

#[test]
fn a_systemd_credential_is_a_pin_source() {
    let site = Site::with_key();
    let file = site.token.path().join("pin");
    site.edit_config(&format!("pin_file = \"{}\"", file.display()), "pin_credential = \"pin\"");
    let site = site.with_environment("CREDENTIALS_DIRECTORY", file.parent().unwrap());
    site.run("check").with(0, "logged in");
    site.serve().unwrap();
}

#[test]
fn a_pin_in_the_configuration_or_on_the_command_line_is_refused_without_an_echo() {
    let site = Site::with_key();
    let file = format!("pin_file = \"{}\"", site.token.path().join("pin").display());
    let uri = site.token.uri();
    for (right, wrong) in [
        (file.as_str(), format!("{file}\npin = \"{MISPLACED}\"")),
        (&file, format!("{file}\npin = {MISPLACED}")),
        (&file, format!("pin_file = \"{MISPLACED}\"")),
        (&file, format!("pin_file = {MISPLACED}")),
        (&file, format!("pin_file = \"{MISPLACED}")),
        (&file, format!("pin_file = [\"{MISPLACED}\"]")),
        (&file, format!("pin_credential = \"{MISPLACED}\"")),
        (&file, format!("pin_credential = {MISPLACED}")),
        (&uri, format!("{uri}?pin-value={MISPLACED}")),
        (&uri, format!("{uri}?pin-source={MISPLACED}")),
        (&uri, format!("{uri};pin-value={MISPLACED}")),
    ] {
        site.edit_config(right, &wrong);
        for command in COMMANDS {
            let refusal = site.refuse(command);
            assert_eq!(refusal.code, 78, "{wrong}: {refusal:?}");
            assert!(!refusal.output.contains(MISPLACED), "{wrong}: {refusal:?}");
        }
        site.edit_config(&wrong, right);
    }
    for arguments in [&["--pin", MISPLACED][..], &[&format!("--pin={MISPLACED}")]] {
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--config").arg(site.config()).args(arguments).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        assert!(!tool::text(&output.stderr).contains(MISPLACED), "{}", tool::text(&output.stderr));
    }
}

/// Everything a caller can see of an answer.
fn visible(answer: &Answer) -> String {
    format!("{:?} {}", answer.headers, answer.text())
}

#[test]
fn the_pin_appears_nowhere() {
    let site = Site::new();
    site.edit_config("[http]", "[log]\nlevel = \"debug\"\n[http]");
    let appliance = site.serve().unwrap();
    let mut seen = String::new();
    for route in routes::all() {
        let good = route.call(&appliance);
        // A rotation that the table's order has completed cannot be cancelled any more.
        let ended = good.status == 409 && route.path.ends_with("/cancel");
        assert!(good.status < 300 || ended, "{}: {} {}", route.path, good.status, good.text());
        let path = route.concrete(&appliance);
        for answer in [
            good,
            appliance.get(&path),
            appliance.post_empty(&path),
            appliance.post_bytes(&path, "application/json", b"{\"type\":7}"),
            appliance.post_bytes(&path, "text/plain", b"{}"),
        ] {
            seen += &visible(&answer);
        }
    }
    seen += &appliance.get_metrics();
    let process = format!("/proc/{}", appliance.pid());
    for file in ["cmdline", "environ", "comm", "status", "maps"] {
        let content = fs::read(format!("{process}/{file}")).unwrap();
        assert!(!content.is_empty());
        seen += &tool::text(&content);
    }
    seen += &appliance.audit_log();
    seen += &appliance.stop();
    for command in COMMANDS {
        seen += &match command {
            "serve" => site.serve().unwrap().stop(),
            other => site.run(other).output,
        };
    }
    seen += &everything_in(site.home.path());
    assert!(seen.contains("veid-signer-test:1") && seen.len() > 20_000, "too little was looked at");
    assert!(!seen.contains(PIN));
    assert!(!seen.contains(&hex::encode(PIN)));
}

fn everything_in(directory: &Path) -> String {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| if path.is_dir() { everything_in(&path) } else { tool::text(&fs::read(path).unwrap()) }).collect()
}

#[test]
fn a_crash_leaves_no_core() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    fs::create_dir(&state).unwrap();
    let dev = dev_command(&state);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited && exec \"$0\" \"$@\""]).current_dir(home.path());
    command.arg(dev.get_program()).args(dev.get_args());
    let appliance = Appliance::start(command, &state).unwrap_or_else(|(status, log)| panic!("{status}: {log}"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", appliance.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    // Not SEGV: Rust's own handler takes the first one that no faulting instruction repeats.
    appliance.signal("ABRT");
    let status = appliance.wait();
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["state"]);
}

/// Runs a program as somebody who is not root.
fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY_TEXT, "--regid", NOBODY_TEXT, "--clear-groups"]).arg(program);
    command
}

const NOBODY: u32 = 65_534;
const NOBODY_TEXT: &str = "65534";

/// The kernel gives the files in /proc/PID to root when the process must not be looked into: by a
/// debugger, by a core dump, or by reading /proc/PID/mem (ptrace(2), PR_SET_DUMPABLE).
#[test]
fn the_process_cannot_be_looked_into_by_its_own_user() {
    let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid();
    let user = if rustix::process::geteuid().is_root() { NOBODY } else { rustix::process::geteuid().as_raw() };

    let mut ordinary = unprivileged(Path::new("sleep")).arg("60").spawn().unwrap();
    crate::support::eventually("an ordinary process belongs to its user", || {
        (owner(ordinary.id()) == user).then_some(())
    });
    ordinary.kill().unwrap();
    ordinary.wait().unwrap();

    let home = tempfile::tempdir().unwrap();
    chown(home.path(), Some(user), None).unwrap();
    // Where the binary was built need not be a place that this user can enter.
    let binary = home.path().join("verification-signer");
    fs::copy(BINARY, &binary).unwrap();
    let mut command = unprivileged(&binary);
    command.args(dev_command(&home.path().join("state")).get_args());
    let appliance = Appliance::start(command, home.path()).unwrap_or_else(|(status, log)| panic!("{status}: {log}"));
    assert_eq!(fs::metadata(home.path().join("state/pin")).unwrap().uid(), user);
    assert_eq!(owner(appliance.pid()), 0);
}
