//! `[approvals]`: which changes of keys need whose approval.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::Role;

/// What an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Generate,
    Rotate,
    Complete,
    Cancel,
    Revoke,
    Emergency,
    Destroy,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 7] =
        [Self::Generate, Self::Rotate, Self::Complete, Self::Cancel, Self::Revoke, Self::Emergency, Self::Destroy];

    /// The wire form, and the name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Rotate => "rotate",
            Self::Complete => "complete",
            Self::Cancel => "cancel",
            Self::Revoke => "revoke",
            Self::Emergency => "emergency",
            Self::Destroy => "destroy",
        }
    }
}

/// How many, and who. Both must be said.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Approvals by so many different clients.
    pub count: usize,
    /// Who hold one of these roles.
    pub roles: Vec<Role>,
}

/// Says how many clients have one of these roles.
pub type Holders<'a> = &'a dyn Fn(&[Role]) -> usize;

/// `[approvals]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a request waits, and an approval counts.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub expiry: Duration,
    /// Who may act alone in an emergency, which raises a critical alarm.
    pub break_glass_roles: Vec<Role>,
    pub generate: Option<Rule>,
    pub rotate: Option<Rule>,
    pub complete: Option<Rule>,
    pub cancel: Option<Rule>,
    pub revoke: Option<Rule>,
    pub emergency: Option<Rule>,
    pub destroy: Option<Rule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            expiry: Duration::from_secs(3600),
            break_glass_roles: vec![Role::Security],
            generate: None,
            rotate: None,
            complete: None,
            cancel: None,
            revoke: None,
            emergency: None,
            destroy: None,
        }
    }
}

impl Config {
    /// The rule for an operation, if it needs approval.
    #[must_use]
    pub fn rule(&self, operation: Operation) -> Option<&Rule> {
        match operation {
            Operation::Generate => self.generate.as_ref(),
            Operation::Rotate => self.rotate.as_ref(),
            Operation::Complete => self.complete.as_ref(),
            Operation::Cancel => self.cancel.as_ref(),
            Operation::Revoke => self.revoke.as_ref(),
            Operation::Emergency => self.emergency.as_ref(),
            Operation::Destroy => self.destroy.as_ref(),
        }
    }

    /// The rules that the types do not hold. `holders` says how many clients have one of these roles;
    /// `None` where nobody is authenticated.
    pub fn check(&self, holders: Option<Holders<'_>>) -> Result<(), String> {
        if self.expiry < Duration::from_secs(1) || self.expiry > Duration::from_secs(30 * 86_400) {
            return Err("approvals.expiry must be between 1s and 30 days".into());
        }
        check_roles("break_glass_roles", &self.break_glass_roles)?;
        for operation in Operation::ALL {
            if let Some(rule) = self.rule(operation) {
                check_rule(operation.as_str(), rule, holders)?;
            }
        }
        Ok(())
    }

    /// The expiry in whole seconds.
    #[must_use]
    pub fn expiry_seconds(&self) -> i64 {
        i64::try_from(self.expiry.as_secs()).expect("checked: at most 30 days")
    }
}

fn check_rule(name: &str, rule: &Rule, holders: Option<Holders<'_>>) -> Result<(), String> {
    if rule.count == 0 {
        return Err(format!(
            "approvals.{name}.count is 0, which would be no control at all: leave the rule out, or say 1 or more"
        ));
    }
    if rule.roles.is_empty() {
        return Err(format!("approvals.{name}.roles is empty: nobody could approve"));
    }
    check_roles(&format!("{name}.roles"), &rule.roles)?;
    let Some(holders) = holders else {
        return Err(format!("approvals.{name} needs [auth]: without it nobody can be told from the one who asks"));
    };
    let there = holders(&rule.roles);
    if there < rule.count {
        return Err(format!(
            "approvals.{name} needs {} approvals, and only {there} clients in [auth] have one of its roles: it could never be approved",
            rule.count
        ));
    }
    Ok(())
}

fn check_roles(name: &str, roles: &[Role]) -> Result<(), String> {
    match roles.iter().find(|role| matches!(role, Role::Producer | Role::Metrics)) {
        Some(role) => Err(format!("approvals.{name} has the role {role}: producers and metrics are programs")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, holders: Option<usize>) -> Result<(), String> {
        let config: Config = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        match holders {
            Some(count) => config.check(Some(&|_: &[Role]| count)),
            None => config.check(None),
        }
    }

    #[test]
    fn zero_and_missing_counts_are_refused() {
        assert_eq!(check("rotate = { count = 1, roles = [\"security\"] }", Some(1)), Ok(()));
        assert_eq!(check("", None), Ok(()));
        for (text, holders, says) in [
            ("rotate = { count = 0, roles = [\"security\"] }", Some(9), "no control at all"),
            ("rotate = { roles = [\"security\"] }", Some(9), "missing field `count`"),
            ("rotate = { count = 1 }", Some(9), "missing field `roles`"),
            ("rotate = { count = -1, roles = [\"security\"] }", Some(9), "invalid value"),
            ("rotate = { count = 1, roles = [] }", Some(9), "nobody could approve"),
            ("rotate = { count = 1, roles = [\"producer\"] }", Some(9), "are programs"),
            ("rotate = { count = 2, roles = [\"security\"] }", Some(1), "never be approved"),
            ("rotate = { count = 1, roles = [\"security\"] }", None, "needs [auth]"),
            ("expiry = \"0s\"", Some(1), "approvals.expiry"),
            ("break_glass_roles = [\"metrics\"]", Some(1), "are programs"),
            ("rotat = { count = 1, roles = [\"security\"] }", Some(1), "unknown field"),
        ] {
            let message = check(text, holders).unwrap_err();
            assert!(message.contains(says), "{text}: {message}");
        }
    }
}
