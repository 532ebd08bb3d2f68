//! Which configurations are refused, what is said of such a standby, and what becomes of it.

use std::{fs, process::Command};

use serde_json::json;

use super::rotate_standby_with;
use crate::{
    doctor::Report,
    recovery::away::Away,
    support::{appliance::BINARY, eventually, pair::Pair, signer::key, tool},
};

#[test]
fn a_configuration_that_does_not_tell_the_tokens_apart_is_refused() {
    for (from, to, says) in [
        ("[token]\n", "[token]\nkeys = \"own\"\n", "are for [[standby]]"),
        ("[token]\n", "[token]\nfirst_key_on_token_serial = \"1\"\n", "are for [[standby]]"),
        ("keys = \"own\"\n", "first_key_on_token_serial = \"1\"\n", "needs keys = \"own\""),
        (
            "keys = \"own\"\n",
            "keys = \"own\"\nfirst_key_on_token_serial = \"1\"\n",
            "is not the serial that the uri names",
        ),
        ("keys = \"own\"\n", "keys = \"theirs\"\n", "keys"),
        (";serial=", ";model=SoftHSM%20v2;manufacturer=", "the uri must name the serial"),
    ] {
        let pair = Pair::with_empty_standby();
        let text = fs::read_to_string(pair.site.config()).unwrap();
        let (before, table) = text.split_once("[[standby]]").unwrap();
        let changed = match from {
            "[token]\n" => format!("{}[[standby]]{table}", before.replace(from, to)),
            _ => format!("{before}[[standby]]{}", table.replace(from, to)),
        };
        assert_ne!(changed, text);
        fs::write(pair.site.config(), changed).unwrap();
        pair.site.refuse("serve").with(78, says);
    }
}

#[test]
fn check_and_doctor_say_what_it_lacks() {
    let pair = Pair::with_empty_standby();
    let doctor = || Report::of(pair.site.doctor(&pair.site.config()));
    pair.site.run("check").with(0, "standby-1 cannot take over");
    doctor().says("standby-keys", "warn", "standby-1: has no key of its own yet");
    pair.site.run("init").with(0, "standby-1: active key");
    doctor().says("standby-keys", "ok", "standby-1: has the keys");
    pair.standby.initialise_again();
    doctor().says("standby-keys", "warn", "standby-1: lacks");
    pair.site.run("check").with(0, "standby-1 cannot take over");
}

#[test]
fn a_backup_holds_the_keys_of_all_tokens_and_says_what_could_not_be_compared() {
    let pair = Pair::independent();
    let run = |arguments: &[&str]| {
        let beside = pair.site.command("serve", &pair.site.config());
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--config").arg(pair.site.config());
        command.envs(beside.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().unwrap();
        (output.status.success(), tool::text(&output.stdout) + &tool::text(&output.stderr))
    };
    let path = |name: &str| pair.site.path(name).to_str().unwrap().to_owned();
    let backup = |name: &str| {
        let (well, said) = run(&["backup", "create", "--output", &path(name)]);
        assert!(well, "{said}");
        said
    };
    let drill = |name: &str| run(&["backup", "drill", &path(name)]);
    assert!(!backup("whole").contains("is away"));
    let (well, said) = drill("whole");
    assert!(well && !said.contains("compared with the ledger only"), "{said}");
    let away = Away::take(&pair.standby);
    assert!(backup("part").contains("standby-1 is away"));
    let (well, said) = drill("whole");
    assert!(well && said.contains("1 key(s) compared with the ledger only: standby-1 is away"), "{said}");
    drop(away);
    // A token that has lost the key is told from one that is away.
    pair.standby.initialise_again();
    let (well, said) = drill("whole");
    assert!(!well && said.contains(&key(2)), "{said}");
}

/// The primary will not come back: the standby's table takes the place of `[token]`.
#[test]
fn a_standby_with_keys_of_its_own_becomes_the_primary_and_goes_on_with_them() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let signed = appliance.attest();
    let _away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    assert_eq!(rotate_standby_with(&appliance, &json!({ "overlap_seconds": 0 })).status, 201);
    appliance.stop();
    pair.site.refuse("serve").with(69, "no token matches");
    let text = fs::read_to_string(pair.site.config()).unwrap();
    let (before, table) = text.split_once("\n[[standby]]\n").unwrap();
    let (head, rest) = before.split_once("[token]\n").unwrap();
    let (_, tail) = rest.split_once("[audit]\n").unwrap();
    let table = table.replace("keys = \"own\"\n", "");
    fs::write(pair.site.config(), format!("{head}[token]\n{table}\n[audit]\n{tail}")).unwrap();
    let refused = pair.site.refuse("serve");
    refused.with(69, "state.accept_ledger_head = ");
    let said = refused.output.split("accept_ledger_head = ").nth(1).unwrap();
    let ledger_head: String = said.chars().skip_while(|c| !c.is_ascii_hexdigit()).take(64).collect();
    pair.site.edit_config("[state]\n", &format!("[state]\naccept_ledger_head = \"{ledger_head}\"\n"));
    pair.site.refuse("serve").with(69, "move the trail aside");
    fs::rename(pair.site.path("audit"), pair.site.path("audit-before")).unwrap();
    fs::create_dir(pair.site.path("audit")).unwrap();
    fs::remove_file(pair.site.path("state/audit-seen.json")).unwrap();
    pair.site.run("init").with(0, &format!("nothing to do: active key {}", key(3)));
    let appliance = pair.site.serve().unwrap();
    assert_eq!(appliance.signing_key(), key(3));
    // What the lost token signed is verified until its key is revoked, which it should be.
    assert_eq!(appliance.verdict(&signed), "valid");
    let body = json!({ "reason": "compromised", "initiated_by": "security-team" });
    appliance.post(&format!("/api/v1/keys/{}/revoke", key(1)), &body).ok();
    assert_eq!(appliance.verdict(&signed), "key_revoked");
    let rotated = super::rotate_primary(&appliance);
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    assert_eq!(appliance.signing_key(), key(4));
    eventually("it is ready", || (appliance.get("/readyz").status == 200).then_some(()));
}
