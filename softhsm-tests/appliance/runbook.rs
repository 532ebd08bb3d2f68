//! RUNBOOK.md, command by command, in one shell, against a running appliance. What needs systemd is run
//! in a machine of its own (`softhsm-tests/appliance/machine.sh`), together with all the rest.

use std::fs;

use crate::support::{signer::Signer, tool};

/// What only a machine with the package has.
const OF_THE_MACHINE: [&str; 5] = ["systemctl ", "journalctl ", "systemd-run ", "/var/tmp/audit-", "$BACKUP"];

/// Commands that go over the socket.
const OF_OPERATORS: [&str; 7] =
    ["status", "rotate", "emergency", "keys", "approvals list", "nonces stats", "blocks list"];

/// The commands of every `sh` block; one that goes on in the next line is one.
fn commands(markdown: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in markdown.split("```sh\n").skip(1) {
        let mut command = String::new();
        for line in block.split("```").next().unwrap().lines() {
            command.push_str(line);
            if line.ends_with('\\') {
                command.push('\n');
            } else {
                commands.push(std::mem::take(&mut command));
            }
        }
        assert!(command.is_empty(), "a block ends in the middle of {command}");
    }
    commands
}

fn runbook() -> Vec<String> {
    commands(&fs::read_to_string(format!("{}/RUNBOOK.md", env!("CARGO_MANIFEST_DIR"))).unwrap())
}

#[test]
fn every_command_of_the_runbook_works_as_printed() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("api.sock").display().to_string();
    let signer = Signer::with_lines("[http]", &format!("unix_socket = \"{socket}\""), "", "[fleet]\nsingle = true");
    signer.attest();
    let all = runbook();
    let here: Vec<_> = all.iter().filter(|command| !OF_THE_MACHINE.iter().any(|word| command.contains(word))).collect();
    assert!(here.len() >= 40 && all.len() - here.len() >= 8, "{} of {}", here.len(), all.len());
    let mut script = "set -euo pipefail\n".to_owned();
    for command in here {
        script += &["echo '== ", &command.replace('\'', "'\\''"), "' >&2\n", command, "\n"].concat();
    }
    let audit = signer.home.join("audit");
    for command in OF_OPERATORS {
        let typed = format!("\nverification-signer {command}");
        assert!(script.contains(&typed), "{typed}");
        script =
            script.replace(&typed, &format!("\n{} {command} --socket {socket}", crate::support::appliance::BINARY));
    }
    let script = script
        .replace("http://127.0.0.1:8080", &signer.api)
        .replace("http://127.0.0.1:9090", &signer.metrics)
        .replace("/var/log/virtengine/audit", audit.to_str().unwrap())
        .replace("/var/tmp", scratch.path().to_str().unwrap())
        .replace("verification-signer audit", &format!("{} audit", crate::support::appliance::BINARY))
        .replace(" audit search ", &format!(" audit search --socket {socket} "))
        .replace("verification-signer --version", &format!("{} --version", crate::support::appliance::BINARY));
    let output = tool::output("bash", &["-c", &script], &[], b"");
    let (printed, said) = (tool::text(&output.stdout), tool::text(&output.stderr));
    assert!(output.status.success(), "{printed}\n{said}");
    for null in ["[null", ",null", "\nnull\n"] {
        assert!(!printed.contains(null), "a command asks for a field that is not there:\n{printed}");
    }
    for expected in [
        r#"["in_progress","veid-signer-test:1","veid-signer-test:2","#,
        "\nveid-signer-test:2\n",
        "\ncompleted\n",
        r#"[true,"revoked"]"#,
        r#"["completed","veid-signer-test:3"]"#,
        "virtengine_verification_signer_active_keys 1",
        "\naudit.log.",
        "\nok\n",
    ] {
        assert!(printed.contains(expected), "{expected} is not in\n{printed}");
    }
}

#[test]
fn a_command_may_go_on_in_the_next_line() {
    let markdown = "```sh\na \\\n  b\nc\n```\n```console\nd\n```\n```sh\ne\n```\n";
    assert_eq!(commands(markdown), ["a \\\n  b", "c", "e"]);
}
