//! One request that waits for others, and what they said. Pure: no files, no clock.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Operation, Rule};
use crate::{
    client::{Client, Role},
    timestamp::Timestamp,
};

/// What is to be done, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub operation: Operation,
    /// The key or rotation it is about; empty where the request names none.
    pub target: String,
    pub content: Value,
}

impl Order {
    /// What the request's body says, after it was understood: the same however it was spelled.
    pub fn new(operation: Operation, target: &str, content: &impl Serialize) -> Self {
        let content = serde_json::to_value(content).expect("requests are texts, numbers and truths");
        Self { operation, target: target.to_owned(), content }
    }

    /// SHA-256 of all of it.
    #[must_use]
    pub fn digest_bytes(&self) -> [u8; 32] {
        let text = serde_json::to_vec(self).expect("an order is JSON");
        Sha256::digest(text).into()
    }

    /// The digest in hex.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(self.digest_bytes())
    }
}

/// One approval.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Approval {
    pub by: String,
    /// The roles that they had then.
    pub roles: Vec<Role>,
    pub at: Timestamp,
}

/// One objection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rejection {
    pub by: String,
    pub at: Timestamp,
    pub reason: String,
}

/// A request and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApprovalRequest {
    pub id: String,
    pub order: Order,
    pub requested_by: String,
    pub requested_at: Timestamp,
    pub expires_at: Timestamp,
    pub approvals: Vec<Approval>,
    pub rejection: Option<Rejection>,
    /// When it was carried out, or was about to be.
    pub used_at: Option<Timestamp>,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pending,
    Approved,
    Rejected,
    Expired,
    Used,
}

impl Status {
    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Used => "used",
        }
    }
}

/// Why something about an approval is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no approval request {0:?}")]
    Unknown(String),
    #[error("nobody approves their own request")]
    OwnRequest,
    #[error("one of the roles {} is needed to decide on this", words(.roles))]
    MissingRole { roles: Vec<Role> },
    #[error("one of the roles {} is needed to act alone", words(.roles))]
    MayNotBreakGlass { roles: Vec<Role> },
    #[error("this client has approved it already")]
    AlreadyGiven,
    #[error("what is asked for is not what the request is bound to")]
    OtherContent,
    #[error("the request is that of another client")]
    AnothersRequest,
    #[error("the request is {}", .0.as_str())]
    Closed(Status),
    #[error("too many requests of this client wait for approval")]
    TooMany,
    #[error("the state directory cannot be written")]
    Disk,
}

fn words(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

impl ApprovalRequest {
    /// How many approvals count under the rule as it is now.
    #[must_use]
    pub fn counting(&self, rule: &Rule) -> usize {
        let counts = |approval: &&Approval| {
            approval.by != self.requested_by && approval.roles.iter().any(|role| rule.roles.contains(role))
        };
        let mut by: Vec<_> = self.approvals.iter().filter(counts).map(|approval| &approval.by).collect();
        by.sort_unstable();
        by.dedup();
        by.len()
    }

    /// Where it stands. A rule that was taken away leaves requests that nobody can decide any more.
    #[must_use]
    pub fn status(&self, rule: Option<&Rule>, now: Timestamp) -> Status {
        if self.used_at.is_some() {
            Status::Used
        } else if self.rejection.is_some() {
            Status::Rejected
        } else if now >= self.expires_at {
            Status::Expired
        } else if rule.is_some_and(|rule| rule.count > 0 && self.counting(rule) >= rule.count) {
            Status::Approved
        } else {
            Status::Pending
        }
    }

    /// One more agrees with exactly this.
    pub fn approve(
        &mut self,
        client: &Client,
        digest: &str,
        rule: Option<&Rule>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let roles = self.may_decide(client, rule, now)?;
        if client.identity.as_str() == self.requested_by {
            return Err(Refusal::OwnRequest);
        }
        if self.approvals.iter().any(|approval| approval.by == client.identity.as_str()) {
            return Err(Refusal::AlreadyGiven);
        }
        if digest != self.order.digest() {
            return Err(Refusal::OtherContent);
        }
        self.approvals.push(Approval { by: client.identity.to_string(), roles, at: now });
        Ok(())
    }

    /// One is against it. Whoever asked may take it back in the same way.
    pub fn reject(
        &mut self,
        client: &Client,
        reason: &str,
        rule: Option<&Rule>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if client.identity.as_str() != self.requested_by {
            self.may_decide(client, rule, now)?;
        }
        self.is_open(rule, now)?;
        self.rejection = Some(Rejection { by: client.identity.to_string(), at: now, reason: reason.to_owned() });
        Ok(())
    }

    /// Uses it up.
    pub(super) fn take(&mut self, who: &str, order: &Order, rule: &Rule, now: Timestamp) -> Result<bool, Refusal> {
        if self.requested_by != who {
            return Err(Refusal::AnothersRequest);
        }
        if self.order.digest_bytes() != order.digest_bytes() {
            return Err(Refusal::OtherContent);
        }
        match self.status(Some(rule), now) {
            Status::Approved => {
                self.used_at = Some(now);
                Ok(true)
            }
            Status::Pending => Ok(false),
            closed @ (Status::Rejected | Status::Expired | Status::Used) => Err(Refusal::Closed(closed)),
        }
    }

    fn may_decide(&self, client: &Client, rule: Option<&Rule>, now: Timestamp) -> Result<Vec<Role>, Refusal> {
        self.is_open(rule, now)?;
        let named = rule.map_or(&[][..], |rule| &rule.roles);
        if !client.grants.has_any(named) {
            return Err(Refusal::MissingRole { roles: named.to_vec() });
        }
        Ok(client.grants.roles.iter().copied().collect())
    }

    pub(super) fn is_open(&self, rule: Option<&Rule>, now: Timestamp) -> Result<(), Refusal> {
        match self.status(rule, now) {
            Status::Pending | Status::Approved => Ok(()),
            closed @ (Status::Rejected | Status::Expired | Status::Used) => Err(Refusal::Closed(closed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::client::{ClientIdentity, Grants};

    fn client(name: &str, roles: &[Role]) -> Client {
        Client {
            identity: ClientIdentity::from(name),
            grants: Arc::new(Grants { roles: roles.iter().copied().collect(), ..Grants::nothing() }),
            request_id: String::new(),
            trace_id: None,
            address: [127, 0, 0, 1].into(),
            user_agent: None,
            method: String::new(),
            endpoint: String::new(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds).unwrap()
    }

    fn order(reason: &str) -> Order {
        Order::new(Operation::Rotate, "", &json!({ "reason": reason }))
    }

    fn request() -> ApprovalRequest {
        ApprovalRequest {
            id: "a".into(),
            order: order("planned"),
            requested_by: "ops".into(),
            requested_at: at(0),
            expires_at: at(100),
            approvals: Vec::new(),
            rejection: None,
            used_at: None,
        }
    }

    fn rule(count: usize) -> Rule {
        Rule { count, roles: vec![Role::Security] }
    }

    #[test]
    fn it_is_approved_by_so_many_different_others_with_the_role_and_used_once() {
        let (mut request, rule) = (request(), rule(2));
        let digest = request.order.digest();
        let alice = client("alice", &[Role::Security]);
        let mut approve = |who: &Client, now| request.approve(who, &digest, Some(&rule), at(now));
        assert_eq!(approve(&client("ops", &[Role::Security]), 1), Err(Refusal::OwnRequest));
        assert_eq!(
            approve(&client("eve", &[Role::Operator]), 1),
            Err(Refusal::MissingRole { roles: vec![Role::Security] })
        );
        assert_eq!(approve(&alice, 1), Ok(()));
        assert_eq!(approve(&alice, 2), Err(Refusal::AlreadyGiven));
        assert_eq!(request.take("ops", &order("planned"), &rule, at(3)), Ok(false));
        request.approve(&client("bob", &[Role::Security]), &digest, Some(&rule), at(3)).unwrap();
        assert_eq!(request.take("eve", &order("planned"), &rule, at(4)), Err(Refusal::AnothersRequest));
        assert_eq!(request.take("ops", &order("other"), &rule, at(4)), Err(Refusal::OtherContent));
        assert_eq!(request.take("ops", &order("planned"), &rule, at(4)), Ok(true));
        assert_eq!(request.take("ops", &order("planned"), &rule, at(5)), Err(Refusal::Closed(Status::Used)));
    }

    #[test]
    fn it_is_bound_to_its_content_and_its_time() {
        let (mut request, rule) = (request(), rule(1));
        let alice = client("alice", &[Role::Security]);
        let digest = request.order.digest();
        assert_eq!(request.approve(&alice, &order("other").digest(), Some(&rule), at(1)), Err(Refusal::OtherContent));
        assert_eq!(request.approve(&alice, &digest, Some(&rule), at(100)), Err(Refusal::Closed(Status::Expired)));
        request.approve(&alice, &digest, Some(&rule), at(99)).unwrap();
        let mut late = request.clone();
        assert_eq!(late.take("ops", &order("planned"), &rule, at(100)), Err(Refusal::Closed(Status::Expired)));
        // A rule that was made stricter meanwhile counts.
        assert_eq!(request.clone().take("ops", &order("planned"), &self::rule(2), at(99)), Ok(false));
        request.reject(&alice, "no", Some(&rule), at(99)).unwrap();
        assert_eq!(request.take("ops", &order("planned"), &rule, at(99)), Err(Refusal::Closed(Status::Rejected)));
    }

    #[test]
    fn every_part_of_an_order_is_in_its_digest() {
        let digests = [
            order("a").digest(),
            order("b").digest(),
            Order { operation: Operation::Revoke, ..order("a") }.digest(),
            Order { target: "x".into(), ..order("a") }.digest(),
        ];
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
    }
}
