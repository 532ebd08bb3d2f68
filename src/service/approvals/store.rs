//! Approval requests in one file of the state directory, replaced whole with each change.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use super::{ApprovalRequest, Config, Operation, Order, Refusal, Rule};
use crate::{client::Role, durable, service::Error, timestamp::Timestamp};

/// Requests of one client that may wait at once.
const MOST_OPEN: usize = 20;

/// Requests that are kept after they have ended.
const MOST_KEPT: usize = 1000;

/// What became of looking for an approval.
#[derive(Debug)]
pub(super) enum Found {
    Taken(String),
    Waiting(Box<ApprovalRequest>),
    New(Box<ApprovalRequest>),
}

/// All requests, oldest first.
pub struct Approvals {
    config: Config,
    path: PathBuf,
    requests: Mutex<Vec<ApprovalRequest>>,
}

impl Approvals {
    /// Reads them. A file that cannot be read is a refusal: it may hold rejections.
    pub fn open(config: Config, path: &Path) -> io::Result<Self> {
        let requests = match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { config, path: path.to_owned(), requests: Mutex::new(requests) })
    }

    /// The rule for an operation.
    #[must_use]
    pub fn rule(&self, operation: Operation) -> Option<&Rule> {
        self.config.rule(operation)
    }

    pub(super) fn break_glass_roles(&self) -> &[Role] {
        &self.config.break_glass_roles
    }

    /// All, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<ApprovalRequest> {
        self.requests.lock().iter().rev().cloned().collect()
    }

    /// Everybody whose approval is kept.
    pub(super) fn approvers(&self) -> BTreeSet<String> {
        let requests = self.requests.lock();
        requests.iter().flat_map(|request| &request.approvals).map(|approval| approval.by.clone()).collect()
    }

    /// The one with this id.
    pub fn one(&self, id: &str) -> Result<ApprovalRequest, Error> {
        let requests = self.requests.lock();
        let found = requests.iter().find(|request| request.id == id).cloned();
        found.ok_or_else(|| unknown(id).into())
    }

    /// Uses up the approval of this order, or says for what it waits. `named`: that one and no other. What
    /// the `blocked` have approved does not count any more, not even when their blocks end.
    pub(super) fn find_or_add(
        &self,
        who: &str,
        order: &Order,
        named: Option<&str>,
        rule: &Rule,
        blocked: &BTreeSet<String>,
        now: Timestamp,
    ) -> Result<Found, Error> {
        self.change(|requests| {
            for request in requests.iter_mut().filter(|request| request.used_at.is_none()) {
                request.approvals.retain(|approval| !blocked.contains(&approval.by));
            }
            let is_open =
                |request: &ApprovalRequest| request.requested_by == who && request.is_open(Some(rule), now).is_ok();
            let digest = order.digest_bytes();
            let at = match named {
                Some(id) => Some(requests.iter().position(|request| request.id == id).ok_or_else(|| unknown(id))?),
                None => requests.iter().position(|request| is_open(request) && request.order.digest_bytes() == digest),
            };
            if let Some(request) = at.map(|at| &mut requests[at]) {
                let taken = request.take(who, order, rule, now)?;
                let request = request.clone();
                return Ok(if taken { Found::Taken(request.id) } else { Found::Waiting(Box::new(request)) });
            }
            if requests.iter().filter(|request| is_open(request)).count() >= MOST_OPEN {
                return Err(Refusal::TooMany);
            }
            let request = self.new_request(who, order, now);
            requests.push(request.clone());
            Ok(Found::New(Box::new(request)))
        })
    }

    fn new_request(&self, who: &str, order: &Order, now: Timestamp) -> ApprovalRequest {
        ApprovalRequest {
            id: format!("apr-{}", uuid::Uuid::now_v7()),
            order: order.clone(),
            requested_by: who.to_owned(),
            requested_at: now,
            expires_at: now.plus_seconds(self.config.expiry_seconds()),
            approvals: Vec::new(),
            rejection: None,
            used_at: None,
        }
    }

    /// Lets somebody decide on one.
    pub(super) fn decide(
        &self,
        id: &str,
        decision: impl FnOnce(&mut ApprovalRequest, Option<&Rule>) -> Result<(), Refusal>,
    ) -> Result<ApprovalRequest, Error> {
        self.change(|requests| {
            let request = requests.iter_mut().find(|request| request.id == id);
            let request = request.ok_or_else(|| unknown(id))?;
            decision(request, self.rule(request.order.operation))?;
            Ok(request.clone())
        })
    }

    /// What was used up for nothing may be used again.
    pub(super) fn give_back(&self, id: &str) -> Result<(), Error> {
        self.change(|requests| {
            for request in requests.iter_mut().filter(|request| request.id == id) {
                request.used_at = None;
            }
            Ok(())
        })
    }

    /// Changes a copy; it counts once it is on disk.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<ApprovalRequest>) -> Result<T, Refusal>) -> Result<T, Error> {
        let mut requests = self.requests.lock();
        let mut changed = requests.clone();
        let result = change(&mut changed)?;
        if changed.len() > MOST_KEPT
            && let Some(ended) =
                changed.iter().position(|request| request.used_at.is_some() || request.rejection.is_some())
        {
            changed.remove(ended);
        }
        let text = serde_json::to_vec(&changed).expect("requests are JSON");
        durable::replace(&self.path, &text).map_err(|error| {
            tracing::error!(%error, path = %self.path.display(), "approvals cannot be written");
            Refusal::Disk
        })?;
        *requests = changed;
        Ok(result)
    }
}

fn unknown(id: &str) -> Refusal {
    Refusal::Unknown(id.chars().take(100).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::approvals::Status;

    #[test]
    fn what_is_used_stays_used_after_a_restart_and_what_is_not_on_disk_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("approvals.json");
        let rule = Rule { count: 1, roles: vec![Role::Security] };
        let config = Config { rotate: Some(rule.clone()), ..Config::default() };
        let at = |seconds| Timestamp::from_unix_seconds(seconds).unwrap();
        let nobody = BTreeSet::new();
        let order = Order::new(Operation::Rotate, "", &"content");
        let approvals = Approvals::open(config.clone(), &path).unwrap();
        let Found::New(request) = approvals.find_or_add("ops", &order, None, &rule, &nobody, at(1)).unwrap() else {
            panic!()
        };
        let again = approvals.find_or_add("ops", &order, None, &rule, &nobody, at(1)).unwrap();
        assert!(matches!(again, Found::Waiting(waiting) if waiting.id == request.id));
        let approval = super::super::request::Approval { by: "alice".into(), roles: vec![Role::Security], at: at(1) };
        let agree = |request: &mut ApprovalRequest, _: Option<&Rule>| {
            request.approvals.push(approval);
            Ok(())
        };
        approvals.decide(&request.id, agree).unwrap();

        std::fs::remove_dir_all(directory.path()).unwrap();
        assert!(approvals.find_or_add("ops", &order, None, &rule, &nobody, at(2)).is_err());
        std::fs::create_dir(directory.path()).unwrap();
        assert!(matches!(approvals.find_or_add("ops", &order, None, &rule, &nobody, at(2)).unwrap(), Found::Taken(_)));

        let approvals = Approvals::open(config, &path).unwrap();
        let named = approvals.find_or_add("ops", &order, Some(&request.id), &rule, &nobody, at(3)).unwrap_err();
        assert!(matches!(named, Error::Approval(Refusal::Closed(Status::Used))), "{named}");
        assert!(matches!(approvals.find_or_add("ops", &order, None, &rule, &nobody, at(3)).unwrap(), Found::New(_)));
        std::fs::write(&path, b"[{").unwrap();
        assert!(Approvals::open(Config::default(), &path).is_err());
    }
}
