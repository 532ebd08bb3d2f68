//! What is written for people agrees with the program: problem types, example configurations.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use verification_signer::{config::Config, http::problem::KINDS};

use crate::support::appliance::Appliance;

#[test]
fn every_problem_type_is_explained_under_its_own_address() {
    let appliance = Appliance::dev();
    let list = appliance.get("/problems").ok_text();
    assert_eq!(list.lines().count(), KINDS.len());
    for kind in KINDS {
        let line = list.lines().find(|line| line.split(' ').next() == Some(kind.name));
        assert!(line.is_some_and(|line| line.ends_with(kind.title)), "{} is not in the list", kind.name);
        let answer = appliance.get(&format!("/problems/{}", kind.name));
        assert_eq!(answer.status, 200, "{}", kind.name);
        let text = answer.text();
        let status = format!("status {}", kind.status.as_u16());
        assert!(text.contains(kind.name) && text.contains(&status) && text.contains(kind.remedy), "{text}");
    }
}

fn examples() -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-config");
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let examples: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    assert!(!examples.is_empty());
    examples
}

/// The example that documents every key.
fn complete_example() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-config/softhsm2.toml")).unwrap()
}

#[test]
fn every_example_configuration_is_accepted() {
    for (path, text) in examples() {
        Config::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// A table of the complete example with everything that is commented out in it put in force.
fn uncommented(text: &str, table: &str) -> String {
    let begins = [format!("\n{table}\n"), format!("\n# {table}\n")];
    let whole = begins.iter().find_map(|begins| text.split_once(begins.as_str())).unwrap().1;
    let ends = ["\n[", "\n# ["].into_iter().filter_map(|next| whole.find(next));
    let end = ends.min().unwrap_or(whole.len());
    let lines = whole[..end].lines().filter_map(|line| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let begins = line.split(" = ").next().unwrap();
        let is_setting = !begins.is_empty() && begins.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (is_setting && line.contains(" = ") || line.starts_with("  {") || line == "]").then(|| line.to_owned())
    });
    format!("{table}\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn authentication_and_approvals_of_the_example_go_together() {
    let text = complete_example();
    let auth = uncommented(&text, "[auth]");
    let approvals = uncommented(&text, "[approvals]");
    assert!(auth.contains("keys_file") && auth.contains("jwks_url") && auth.contains("bob"), "{auth}");
    assert_eq!(approvals.matches("count = ").count(), 7, "{approvals}");
    let before = text.split_once("\n[approvals]").unwrap().0;
    Config::parse(&format!("{before}\n{auth}\n{approvals}")).unwrap();
}

/// A line `key = value`, possibly commented out, in its table.
#[derive(Debug)]
struct Line {
    number: usize,
    table: String,
    key: String,
    active: bool,
}

fn lines(text: &str) -> Vec<Line> {
    let mut table = String::new();
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_matches(['[', ']']).to_owned();
        }
        let active = !line.starts_with('#');
        let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") else { continue };
        if key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            found.push(Line { number, table: table.clone(), key: key.to_owned(), active });
        }
    }
    found
}

/// What the program knows, from its own mouth: the refusal of an unknown name lists the known ones.
fn known_names(text: &str) -> BTreeSet<String> {
    let refusal = Config::parse(text).unwrap_err();
    let (_, known) = refusal.split_once(", expected ").unwrap_or_else(|| panic!("{refusal}"));
    known.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

#[test]
fn the_example_names_every_table_and_every_key_and_no_other() {
    // A whole table that is commented out is documented all the same.
    let text = complete_example().replace("\n# [", "\n[");
    let lines = lines(&text);
    // Its keys stay commented out, and some of them must be there.
    let parsed = text.replace("\n[[standby]]\n", "\n");
    let tables = known_names(&format!("{parsed}\n[no-such-table]\n"));
    let documented_tables: BTreeSet<_> = lines.iter().map(|line| line.table.clone()).collect();
    assert_eq!(tables, documented_tables.iter().filter(|table| !table.contains('.')).cloned().collect());
    for table in &documented_tables {
        let keys = lines.iter().filter(|line| line.table == *table).map(|line| line.key.clone());
        // A table in the table is one of its keys.
        let inner = documented_tables.iter().filter_map(|inner| inner.strip_prefix(table)?.strip_prefix('.'));
        let documented: BTreeSet<_> =
            keys.chain(inner.filter(|name| !name.contains('.')).map(ToOwned::to_owned)).collect();
        let (head, text) = match table.as_str() {
            "standby" => ("[[standby]]\n".to_owned(), &text),
            _ => (format!("[{table}]\n"), &parsed),
        };
        assert_eq!(text.matches(&head).count(), 1, "{head}");
        let wrong = text.replace(&head, &format!("{head}no-such-key = 1\n"));
        let known = match table.as_str() {
            // A choice of variants: `store` is its tag, and this variant has no keys.
            "ledger" => {
                assert!(Config::parse(&wrong).unwrap_err().contains("no-such-key"));
                ["store".to_owned()].into()
            }
            // One shape for both tables; two of its keys are a standby's only, and refused here.
            "token" => {
                let mut known = known_names(&wrong);
                assert!(known.remove("keys") && known.remove("first_key_on_token_serial"));
                known
            }
            _ => known_names(&wrong),
        };
        assert_eq!(documented, known, "[{table}]");
    }
}

/// A line that states a default can be left out. These do not: they are one appliance's own, or, for
/// the ledger, the whole table can.
const NO_DEFAULTS: [&str; 6] =
    ["signer.id", "signer.name", "token.module", "token.uri", "token.pin_file", "ledger.store"];

#[test]
fn the_defaults_in_the_example_are_the_defaults() {
    let text = complete_example();
    let complete = format!("{:?}", Config::parse(&text).unwrap());
    for line in lines(&text).into_iter().filter(|line| line.active) {
        let name = format!("{}.{}", line.table, line.key);
        let others = text.lines().enumerate().filter(|(number, _)| *number != line.number).map(|(_, line)| line);
        let without = Config::parse(&others.collect::<Vec<_>>().join("\n"));
        let changes_nothing = without.is_ok_and(|config| format!("{config:?}") == complete);
        assert_eq!(changes_nothing, !NO_DEFAULTS.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn the_list_at_the_root_names_every_route_and_no_other() {
    let listed: BTreeSet<_> = verification_signer::http::index::INDEX
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let routes: BTreeSet<_> =
        crate::support::routes::every().into_iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(listed, routes);
}
