//! A primary and a standby: two SoftHSM2 tokens, the one a copy of the other or with keys of its own, each in a
//! directory of its own.

use std::{fs, path::Path};

use serde_json::Value;

use super::{appliance::Appliance, eventually, faults::Faults, site::Site, softhsm::SoftHsm};

/// An appliance's place beside both tokens; the primary has an active key, and the standby a copy of it.
pub struct Pair {
    pub site: Site,
    pub standby: SoftHsm,
    /// What goes wrong with the primary, and with the standby.
    pub faults: [Faults; 2],
}

impl Pair {
    /// With the standby that `copy` makes of the primary.
    pub fn with_standby(copy: impl FnOnce(&SoftHsm) -> SoftHsm) -> Self {
        let (site, faults) = Site::new().faulty();
        site.edit_config("[http]", &format!("{}[http]", ledger_file(&site.path("ledger"))));
        site.run("init").with(0, "active key");
        let standby = copy(&site.token);
        let directory = site.path("standby");
        fs::create_dir(&directory).unwrap();
        let faulty = Faults::new(&directory);
        add_standby(&site, &standby, &faulty);
        Self { site, standby, faults: [faults, faulty] }
    }

    /// With a standby that has keys of its own; the first one is not made yet.
    pub fn with_empty_standby() -> Self {
        let pair = Self::with_standby(|_| SoftHsm::labelled("standby"));
        pair.site.edit_config("[[standby]]\n", "[[standby]]\nkeys = \"own\"\n");
        pair
    }

    /// With a standby that has an active key of its own: the primary's is key 1, the standby's key 2.
    pub fn independent() -> Self {
        let pair = Self::with_empty_standby();
        pair.site.run("init").with(0, "standby-1: active key");
        pair
    }

    /// Where `serve` may make the first key of the standby.
    pub fn name_standby(&self) {
        let line = format!("[[standby]]\nfirst_key_on_token_serial = \"{}\"\n", self.standby.serial);
        self.site.edit_config("[[standby]]\n", &line);
    }

    pub fn new() -> Self {
        Self::with_standby(SoftHsm::copy)
    }

    /// Serves, and waits until the standby could sign.
    pub fn serve(&self) -> Appliance {
        let appliance = self.site.serve().unwrap();
        appliance.standby_is_ready();
        appliance
    }

    /// Copies what is on the primary to the standby once more, as a vendor's tool would.
    pub fn clone_keys(&self) {
        copy_objects(&self.site.token, &self.standby);
    }
}

/// A ledger beside the tokens, for one appliance.
pub fn ledger_file(path: &Path) -> String {
    let ledger = format!("[ledger]\nstore = \"file\"\npath = \"{}\"\n", path.display());
    ledger + "[fleet]\nsingle = true\n[failover]\nreturn_after = \"1s\"\n"
}

/// Names a token as the standby, behind a module that fails as it is told.
pub fn add_standby(site: &Site, standby: &SoftHsm, faults: &Faults) {
    let mut values = vec![format!("\"SOFTHSM2_CONF={}\"", standby.conf().display())];
    values.extend(faults.environment().map(|(name, value)| format!("\"{name}={}\"", value.display())));
    let table = format!(
        "\n[[standby]]\nmodule = \"{}\"\nuri = \"{}\"\npin_file = \"{}\"\nenvironment = [{}]\n",
        Faults::module().display(),
        standby.uri(),
        standby.path().join("pin").display(),
        values.join(", "),
    );
    let text = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), text + &table).unwrap();
}

/// Copies the objects that are missing, and then the file by which whoever uses the token sees that there are
/// new ones: once that has changed it looks for them, and not again.
fn copy_objects(from: &SoftHsm, to: &SoftHsm) {
    for file in from.object_files() {
        let there = to.tokens().join(file.strip_prefix(from.tokens()).unwrap());
        if !there.exists() {
            fs::copy(&file, there).unwrap();
        }
    }
    let generation = |token: &SoftHsm| token.token_object().with_file_name("generation");
    fs::copy(generation(from), generation(to)).unwrap();
}

impl Appliance {
    /// A token as `/healthz` shows it.
    pub fn token_health(&self, name: &str) -> Value {
        let health = self.get("/healthz").json();
        let tokens = health["tokens"].as_array().cloned().unwrap_or_default();
        tokens.into_iter().find(|token| token["name"] == name).unwrap_or_else(|| panic!("no {name} in {health}"))
    }

    pub fn standby_is_ready(&self) {
        eventually("the standby is ready", || (self.token_health("standby-1")["ready"] == true).then_some(()));
    }

    /// Waits until this token is asked first.
    pub fn signs_on(&self, name: &str) {
        eventually(&format!("{name} signs"), || (self.token_health(name)["signs"] == true).then_some(()));
    }

    /// The names of the tokens to which it was changed over, in order.
    pub fn switches(&self) -> Vec<String> {
        let records = ["error", "health_check"].map(|kind| self.audit_events(kind)).concat();
        let mut switches: Vec<_> = records.iter().filter(|record| record["action"] == "switch_token").collect();
        switches.sort_by_key(|record| record["sequence"].as_u64());
        switches.iter().map(|record| record["details"]["to"].as_str().unwrap().to_owned()).collect()
    }

    /// Which key each token would sign with now, the primary first.
    pub fn active_on(&self) -> [String; 2] {
        ["primary", "standby-1"]
            .map(|name| self.token_health(name)["active_key_id"].as_str().unwrap_or_default().to_owned())
    }

    /// Asserts that the record of each attestation names the key that the attestation names, and the token that has it.
    pub fn records_agree(&self, pair: &Pair) {
        for record in self.audit_events("attestation_signed") {
            let details = &record["details"];
            let serial = match details["token"].as_str().unwrap() {
                "primary" => &pair.site.token.serial,
                _ => &pair.standby.serial,
            };
            assert_eq!(details["token_serial"], serial.as_str());
            let of_key = self.get(&format!("/api/v1/keys/{}", details["key_id"].as_str().unwrap())).ok();
            assert_eq!(of_key["token"]["serial"], serial.as_str(), "{record}");
        }
    }

    /// On which token each attestation was signed, in order.
    pub fn signed_on(&self) -> Vec<String> {
        let signed = self.audit_events("attestation_signed");
        signed.iter().map(|record| record["details"]["token"].as_str().unwrap().to_owned()).collect()
    }
}
