//! The README's session runs as printed: every `$` line of its `console` blocks, in one shell, with
//! only the addresses replaced. `…` in the printed output stands for anything.

use std::{fs, path::Path};

use crate::support::{appliance::Appliance, tool};

/// Commands and the output printed under each.
fn session(markdown: &str) -> Vec<(String, Vec<String>)> {
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for block in markdown.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let mut continues = false;
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push((command.to_owned(), Vec::new()));
                continues = command.ends_with('\\');
            } else if let Some((command, output)) = steps.last_mut() {
                if continues {
                    command.push('\n');
                    command.push_str(line.strip_prefix("> ").unwrap_or(line));
                    continues = line.ends_with('\\');
                } else {
                    output.push(line.to_owned());
                }
            }
        }
    }
    steps
}

/// Whether `line` is `pattern`, in which `…` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn the_readme_session_runs_as_printed() {
    let markdown = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let appliance = Appliance::dev();
    let home = tempfile::tempdir().unwrap();
    let mut script = format!("set -euo pipefail; cd {}\n", home.path().display());
    let steps: Vec<_> = session(&markdown)
        .into_iter()
        .filter(|(command, _)| !command.starts_with("make ") && !command.contains("verification-signer dev"))
        .collect();
    assert!(steps.len() >= 8, "the session has shrunk to {} commands", steps.len());
    for (command, _) in &steps {
        script.push_str(command);
        script.push_str("\necho; echo ----next----\n");
    }
    let script =
        script.replace("http://127.0.0.1:8080", &appliance.api).replace("http://127.0.0.1:9090", &appliance.metrics);
    let output = tool::output("bash", &["-c", &script], &[], b"");
    let printed = tool::text(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", tool::text(&output.stderr));
    let mut results = printed.split("----next----\n");
    for (command, expected) in steps {
        let lines: Vec<_> = results.next().unwrap().lines().filter(|line| !line.is_empty()).collect();
        let expected: Vec<_> = expected.iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), expected.len(), "$ {command}\nprinted {lines:#?}\nbut the README shows {expected:#?}");
        for (pattern, line) in expected.iter().zip(&lines) {
            assert!(matches(pattern, line), "$ {command}\nprinted {line}\nbut the README shows {pattern}");
        }
    }
}

#[test]
fn wildcards_match_what_they_should() {
    assert!(matches("a…c", "abc") && matches("abc", "abc") && matches("…", "x") && matches("a…b…c", "a1b2c"));
    assert!(!matches("abc", "abcd") && !matches("a…c", "abd") && !matches("b…", "abc"));
}
