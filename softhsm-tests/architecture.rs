//! The direction of imports, and who may mint evidence: `src/lib.rs` says it, this holds it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// From top to bottom. A room imports its own layer only where the layer is one room of several
/// that may know each other (vocabulary, foundation, composition).
const LAYERS: &[(&str, &[&str], Siblings)] = &[
    ("entry", &["main", "cli"], Siblings::Allowed),
    ("composition", &["app", "supervisor", "backup", "config"], Siblings::Allowed),
    ("delivery", &["http"], Siblings::Forbidden),
    ("use cases", &["service"], Siblings::Forbidden),
    ("adapters", &["token", "ledger_file", "nonce", "limits", "fleet", "audit", "authn"], Siblings::Forbidden),
    (
        "foundation",
        &["redis", "durable", "secret", "metrics", "telemetry", "duration", "network", "systemd", "exit_code"],
        Siblings::Allowed,
    ),
    (
        "vocabulary",
        &["attestation", "key", "evidence", "client", "nonce_value", "quota", "clock", "timestamp", "schema", "merkle"],
        Siblings::Allowed,
    ),
];

#[derive(Clone, Copy, PartialEq)]
enum Siblings {
    Allowed,
    Forbidden,
}

fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths
        .into_iter()
        .filter(|path| !path.ends_with("src/lib.rs"))
        .map(|path| {
            let room = path.strip_prefix(&root).unwrap().components().next().unwrap().as_os_str().to_str().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            (room.trim_end_matches(".rs").to_owned(), path, text)
        })
        .collect()
}

/// Rooms that a file names: `crate::room` anywhere, and `use crate::{room…, room…}`.
fn imports(text: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut rooms = BTreeSet::new();
    for prefix in ["crate::", "verification_signer::"] {
        for (at, _) in text.match_indices(prefix) {
            let rest = &text[at + prefix.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                rooms.insert(word(rest));
                continue;
            };
            let mut depth = 0;
            let mut first_of_item = true;
            for (index, character) in group.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => first_of_item = true,
                    c if first_of_item && depth == 0 && (c.is_ascii_alphabetic() || c == '_') => {
                        rooms.insert(word(&group[index..]));
                        first_of_item = false;
                    }
                    _ => {}
                }
            }
        }
    }
    rooms.remove("");
    rooms
}

fn layer(room: &str) -> usize {
    LAYERS
        .iter()
        .position(|(_, rooms, _)| rooms.contains(&room))
        .unwrap_or_else(|| panic!("{room} is in no layer: add it here and in src/lib.rs"))
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for (room, path, text) in sources() {
        for imported in imports(&text) {
            let (from, to) = (layer(&room), layer(&imported));
            let sideways = from == to && room != imported && LAYERS[from].2 == Siblings::Forbidden;
            if to < from || sideways {
                wrong.push(format!("{} imports {imported}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_stay_in_their_rooms() {
    for (library, rooms) in [
        ("cryptoki", &["token"][..]),
        ("actix_web", &["http", "cli"]),
        ("deadpool_redis", &["redis", "nonce", "limits", "fleet"]),
        ("x509_cert", &["token", "http"]),
        ("sd_notify", &["systemd"]),
        ("jsonwebtoken", &["authn"]),
        ("ureq", &["authn", "cli"]),
    ] {
        for (room, path, text) in sources() {
            let named = text.contains(&format!("{library}::")) || text.contains(&format!("use {library};"));
            assert!(!named || rooms.contains(&room.as_str()), "{} knows {library}", path.display());
        }
    }
}

#[test]
fn evidence_is_minted_in_one_place_each() {
    for (trait_, rooms) in
        [("Permitted", &["service"][..]), ("Warrant", &["service"]), ("Receipt", &["audit"]), ("TreeHead", &["audit"])]
    {
        let pattern = format!("{trait_} for ");
        for (room, path, text) in sources() {
            // The contract suite of the nonce stores stands in for policy.
            let in_test = path.ends_with("nonce/contract.rs");
            assert!(
                !text.contains(&pattern) || rooms.contains(&room.as_str()) || in_test,
                "{} implements {trait_}",
                path.display()
            );
        }
    }
}

#[test]
fn the_map_in_lib_rs_names_every_room() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let documentation: String = map.lines().filter(|line| line.starts_with("//!")).collect();
    for (_, rooms, _) in LAYERS {
        for room in *rooms {
            assert!(documentation.contains(&format!("`{room}`")), "src/lib.rs does not name {room}");
        }
    }
}
