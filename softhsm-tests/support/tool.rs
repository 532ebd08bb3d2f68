//! Other people's tools, as judges.

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs a tool that must succeed; returns its standard output.
pub fn run(program: &str, arguments: &[&str], environment: &[(&str, &Path)]) -> String {
    let output = output(program, arguments, environment, b"");
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed: {}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a tool, whatever comes of it.
pub fn output(program: &str, arguments: &[&str], environment: &[(&str, &Path)], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} cannot be started ({error}): run `make tools`"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Bytes as text, for messages and searches.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
