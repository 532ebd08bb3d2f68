//! A fleet on a token of its own.

use tempfile::TempDir;

use crate::support::{
    appliance::Appliance,
    client::Client,
    eventually,
    signer::{first_key_here, rotation_request},
    softhsm::SoftHsm,
};

/// Appliances on one token; the first of them made the first key.
pub struct Fleet {
    pub members: Vec<Appliance>,
    token: SoftHsm,
    home: TempDir,
}

impl Fleet {
    /// So many members; `tables` are appended to every configuration.
    pub fn of(count: usize, tables: &str) -> Self {
        let (token, home) = (SoftHsm::new(), tempfile::tempdir().unwrap());
        let members = (0..count)
            .map(|number| {
                let config = token.config(&home.path().join(number.to_string()), &first_key_here(&token, "", tables));
                // One after another: SoftHSM2 shows others an empty token for a moment at C_Login.
                let started = Appliance::serve(&token, &config);
                started.unwrap_or_else(|(status, log)| panic!("serve ended with {status}: {log}"))
            })
            .collect();
        Self { members, token, home }
    }

    /// One more on the same token, who is no member yet.
    pub fn newcomer(&self, name: &str, tables: &str) -> Appliance {
        let config = self.token.config(&self.home.path().join(name), tables);
        let started = Appliance::serve(&self.token, &config);
        started.unwrap_or_else(|(status, log)| panic!("serve ended with {status}: {log}"))
    }

    /// A client for each member.
    pub fn clients(&self) -> Vec<Client> {
        self.members.iter().map(|member| Client::new(&member.api)).collect()
    }

    /// Waits until every member has this key as its active one.
    pub fn all_follow(&self, key_id: &str) {
        for member in &self.members {
            eventually("a member follows", || {
                let active = member.get("/api/v1/keys/active");
                (active.status == 200 && active.json()["key_id"] == key_id).then_some(())
            });
        }
    }
}

/// Rotates through this member; the new key.
pub fn rotate(member: &Appliance, more: &serde_json::Value) -> String {
    let answer = member.post("/api/v1/keys/rotate", &rotation_request(more));
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["new_key_id"].as_str().unwrap().to_owned()
}
