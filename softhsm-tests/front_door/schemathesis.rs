//! schemathesis against the served description, with every check that it has.

use std::{path::Path, process::Command};

use crate::support::{guarded::Guarded, tool};

/// Runs so many cases an operation; what it said.
fn run(cases: &str, seed: &str, phases: &str) -> String {
    let guarded = Guarded::new();
    let key = guarded.key("everything", &[]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/venv/bin/st");
    assert!(program.exists(), "schemathesis is not installed: run softhsm-tests/install-tools.sh tests");
    let output = Command::new(program)
        .arg("--config-file")
        .arg(root.join("softhsm-tests/front_door/schemathesis.toml"))
        .args(["run", &format!("{}/api/v1/openapi.json", guarded.appliance().api)])
        .env("SCHEMATHESIS_HOOKS", root.join("softhsm-tests/front_door/schemathesis_hooks.py"))
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(["--checks", "all", "--phases", phases, "--max-examples", cases, "--seed", seed])
        .args([
            "--continue-on-failure",
            "--no-color",
            // More than one fall over each other inside schemathesis itself, now and then.
            "--workers",
            "1",
            "--suppress-health-check",
            "all",
            "--warnings",
            "off",
        ])
        .current_dir(guarded.home())
        .output()
        .unwrap();
    let text = tool::text(&output.stdout) + &tool::text(&output.stderr);
    println!("{text}");
    assert!(output.status.success(), "schemathesis found something");
    assert_eq!(guarded.plain().get("/livez").status, 200);
    assert!(!guarded.appliance().log().contains("panicked"));
    text
}

/// How many cases there were: `48432 generated, 48432 passed, 74 skipped`.
fn generated(text: &str) -> usize {
    let count = text.lines().find_map(|line| line.trim().split_once(" generated")).expect("a summary").0;
    count.replace(',', "").parse().unwrap()
}

#[test]
fn schemathesis_finds_nothing() {
    let cases = generated(&run("5", "6", "examples,coverage,fuzzing"));
    assert!(cases >= 500, "only {cases} cases");
}

#[test]
#[ignore = "more than 20 000 cases: make test-long"]
fn schemathesis_finds_nothing_in_twenty_thousand_cases() {
    let text = run("1400", "20000", "examples,coverage,fuzzing,stateful");
    let cases = generated(&text);
    assert!(cases >= 20_000, "only {cases} cases");
}
