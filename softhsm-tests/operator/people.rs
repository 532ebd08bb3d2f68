//! Who may do what, and what needs two: the system says who asks.

use super::Desk;

const OPERATORS: u32 = 61_001;
const SECURITY: u32 = 61_002;
const STRANGERS: u32 = 61_003;

fn desk(approvals: &str) -> Desk {
    Desk::with(&format!(
        r#"[fleet]
single = true
[auth]
clients = [
  {{ name = "ops", roles = ["operator", "auditor"], unix_gids = [{OPERATORS}] }},
  {{ name = "sec", roles = ["security", "auditor"], unix_gids = [{SECURITY}] }},
]
{approvals}"#
    ))
}

#[test]
fn who_lacks_the_role_is_told_which_and_nothing_is_done() {
    let desk = desk("");
    desk.run_as_group(OPERATORS, &["keys"]).prints(&["active"]);
    let revoke = ["revoke", "veid-signer-test:1", "--reason", "compromised", "--yes"];
    desk.run_as_group(OPERATORS, &revoke).says(77, &["role security", "unix_gids"]);
    desk.run_as_group(STRANGERS, &["keys"]).says(77, &["not-authenticated"]);
    let key = desk.run_as_group(SECURITY, &["keys", "veid-signer-test:1", "--json"]).json();
    assert_eq!(key["state"], "active");
    desk.run_as_group(SECURITY, &revoke).prints(&["revoked"]);
}

#[test]
fn a_change_that_needs_two_says_what_the_second_person_types() {
    let desk = desk("[approvals]\nrotate = { count = 1, roles = [\"security\"] }");
    let rotate = ["rotate", "--notes", "planned"];
    let waiting = desk.run_as_group(OPERATORS, &rotate);
    waiting.says(75, &["Waits for approval", "0 of 1, by somebody else with the role security"]);
    let line = waiting.said.lines().find(|line| line.contains("approvals approve")).unwrap();
    let words: Vec<_> = line.split_whitespace().skip(1).collect();
    let id = words[2];
    assert_eq!(words[..2], ["approvals", "approve"]);
    assert_eq!(words[3..], ["--socket", desk.socket().to_str().unwrap()]);
    assert!(waiting.said.ends_with("Then give the same command again.\n"), "{}", waiting.said);

    // Nothing was done, nobody approves unasked, nobody approves their own.
    desk.run_as_group(OPERATORS, &["rotations"]).prints(&["Nothing was rotated yet."]);
    desk.run_as_group(OPERATORS, &["approvals", "list"]).prints(&[id, "pending", "rotate", "0 of 1 (security)"]);
    desk.run_as_group(OPERATORS, &["status"]).prints(&["Waiting for approval", id]);
    desk.run_as_group(SECURITY, &["approvals", "approve", id]).says(64, &["--yes"]);
    desk.run_as_group(OPERATORS, &["approvals", "approve", id, "--yes"]).says(77, &["needed to decide"]);
    desk.run_as_group(OPERATORS, &rotate).says(75, &[id]);

    desk.run_as_group(SECURITY, &["approvals", "approve", id, "--yes"])
        .prints(&["\"notes\":\"planned\"", "approved: ops gives"]);
    desk.run_as_group(OPERATORS, &rotate).prints(&["rotation-2", "in_progress"]);
    desk.run_as_group(OPERATORS, &["approvals", "show", id]).prints(&["used", "sec"]);
}

#[test]
fn a_request_is_rejected_and_one_person_alone_breaks_the_glass() {
    let desk = desk("[approvals]\nrevoke = { count = 1, roles = [\"operator\"] }");
    let revoke = ["revoke", "veid-signer-test:1", "--reason", "compromised", "--yes"];
    desk.run_as_group(SECURITY, &revoke).says(75, &["Waits"]);
    let list = desk.run_as_group(OPERATORS, &["approvals", "list", "--json"]).json();
    let id = list[0]["approval_id"].as_str().unwrap();
    desk.run_as_group(OPERATORS, &["approvals", "reject", id, "--reason", "not now"])
        .prints(&["rejected", "by ops: not now"]);
    let alone = [&revoke[..], &["--break-glass", "nobody else answers the phone"]].concat();
    desk.run_as_group(SECURITY, &alone).prints(&["revoked"]);
    desk.run_as_group(OPERATORS, &["status", "--json"]);
    let shown = desk.run_as_group(OPERATORS, &["status"]);
    assert!(shown.code == 69 && shown.printed.contains("security_alert"), "{shown:?}");
}
