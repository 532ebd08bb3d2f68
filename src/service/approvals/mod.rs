//! Dual control: a change of keys that waits until others agree.
//!
//! A request is bound to the SHA-256 of what it asks for. It waits; others with the named roles
//! approve that very digest; then its maker sends it again, and it is carried out, once. **Commit
//! point** of an approval's use: the file, written before the change begins. A crash after it has
//! used the approval up, whether or not the change was made.

mod config;
mod request;
mod store;

pub use config::{Config, Operation, Rule};
pub use request::{ApprovalRequest, Order, Refusal, Status};
pub use store::Approvals;

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    audit::{Event, EventType, Severity},
    client::{Client, ClientIdentity},
    service::{Error, Service},
    timestamp::Timestamp,
};

/// How a request may go on.
#[derive(Debug)]
pub enum Clearance {
    /// Nobody has to agree.
    Free,
    /// Enough have agreed, and the approval is used up by this.
    Approved(String),
    /// One person took it upon themselves.
    BrokenGlass,
    /// It waits.
    Waiting(Box<ApprovalRequest>),
}

impl Service {
    /// Whether a request may be carried out now. `approval` names one that must be the right one;
    /// `emergency` is the reason of somebody who breaks the glass.
    pub async fn clear(
        &self,
        client: &Client,
        order: &Order,
        approval: Option<String>,
        emergency: Option<&str>,
    ) -> Result<Clearance, Error> {
        let Some(rule) = self.approvals.rule(order.operation).cloned() else { return Ok(Clearance::Free) };
        if let Some(reason) = emergency {
            self.break_glass(client, order, reason).await?;
            return Ok(Clearance::BrokenGlass);
        }
        let (who, what, now) = (client.identity.to_string(), order.clone(), self.clock.now());
        let blocked = self.blocked_approvers(now);
        let found = self
            .change_approvals(move |approvals| {
                approvals.find_or_add(&who, &what, approval.as_deref(), &rule, &blocked, now)
            })
            .await;
        let found = match found {
            Ok(found) => found,
            Err(error) => return Err(self.refused_approval(client, order, error).await),
        };
        match found {
            store::Found::Taken(id) => {
                self.note(client, &id, "use-approval", order).await?;
                Ok(Clearance::Approved(id))
            }
            store::Found::New(request) => {
                let event = self.approval_event(client, &request.id, "request-approval", order);
                self.audit.record(event).await?;
                self.metrics.approvals.with_label_values(&[order.operation.as_str(), "requested"]).inc();
                Ok(Clearance::Waiting(request))
            }
            store::Found::Waiting(request) => Ok(Clearance::Waiting(request)),
        }
    }

    /// Who has approved something and is blocked by now. Asked at every use: blocks come from other
    /// appliances, too.
    fn blocked_approvers(&self, now: Timestamp) -> BTreeSet<String> {
        let is_blocked = |name: &String| {
            self.limits.blocks.against(None, Some(&ClientIdentity::from(name.as_str())), None, now).is_some()
        };
        self.approvals.approvers().into_iter().filter(is_blocked).collect()
    }

    /// One person, in an emergency, without the approval of others. The alarm is on disk before
    /// anything is changed.
    async fn break_glass(&self, client: &Client, order: &Order, reason: &str) -> Result<(), Error> {
        let roles = self.approvals.break_glass_roles();
        if !client.grants.has_any(roles) {
            let refusal = Refusal::MayNotBreakGlass { roles: roles.to_vec() };
            return Err(self.refused_approval(client, order, Error::Approval(refusal)).await);
        }
        let event = self
            .approval_event(client, &order.target, "break-glass", order)
            .of_kind(EventType::SecurityAlert)
            .of_severity(Severity::Critical)
            .detail("reason", reason);
        self.audit.record(event).await?;
        self.metrics.break_glass.with_label_values(&[order.operation.as_str()]).inc();
        tracing::error!(
            client = %client.identity,
            operation = order.operation.as_str(),
            target = order.target,
            reason,
            "break glass: a change of keys without the approval of others"
        );
        Ok(())
    }

    /// The change was refused, so nothing was changed: the approval may be used again.
    pub async fn give_back_approval(&self, id: String) {
        if let Err(error) = self.change_approvals(move |approvals| approvals.give_back(&id)).await {
            tracing::warn!(%error, "an approval stays used up");
        }
    }

    /// One more agrees.
    pub async fn approve(&self, client: &Client, id: &str, digest: &str) -> Result<ApprovalRequest, Error> {
        let (who, text, now) = (client.clone(), digest.to_owned(), self.clock.now());
        self.decide(client, id, "approve", move |request, rule| request.approve(&who, &text, rule, now)).await
    }

    /// One is against it, which is enough.
    pub async fn reject(&self, client: &Client, id: &str, reason: &str) -> Result<ApprovalRequest, Error> {
        let (who, text, now) = (client.clone(), reason.to_owned(), self.clock.now());
        self.decide(client, id, "reject", move |request, rule| request.reject(&who, &text, rule, now)).await
    }

    async fn decide(
        &self,
        client: &Client,
        id: &str,
        action: &'static str,
        decision: impl FnOnce(&mut ApprovalRequest, Option<&Rule>) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<ApprovalRequest, Error> {
        let found = self.approvals.one(id)?;
        // On record before it counts: an approval that nobody can see afterwards is none.
        let event = self.approval_event(client, id, action, &found.order);
        let wanted = id.to_owned();
        let work = self.change_approvals(move |approvals| approvals.decide(&wanted, decision));
        match self.on_record(event.clone(), work, |_| event).await {
            Ok(request) => {
                self.metrics.approvals.with_label_values(&[request.order.operation.as_str(), action]).inc();
                Ok(request)
            }
            Err(error) => Err(self.refused_approval(client, &found.order, error).await),
        }
    }

    async fn change_approvals<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Approvals) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let approvals = Arc::clone(&self.approvals);
        tokio::task::spawn_blocking(move || change(&approvals))
            .await
            .map_err(|_| Error::Internal("a change of approvals was cut short"))?
    }

    async fn refused_approval(&self, client: &Client, order: &Order, error: Error) -> Error {
        if let Error::Approval(refusal) = &error {
            let event = self.approval_event(client, &order.target, "approval", order);
            let denial = event.of_kind(EventType::AccessDenied).failed(Severity::Warning);
            self.record_denial(denial, refusal.to_string()).await;
        }
        error
    }

    async fn note(&self, client: &Client, id: &str, action: &'static str, order: &Order) -> Result<(), Error> {
        self.audit.record(self.approval_event(client, id, action, order)).await?;
        Ok(())
    }

    fn approval_event(&self, client: &Client, resource: &str, action: &'static str, order: &Order) -> Event {
        Event::of_client(EventType::AccessGranted, action, resource, client, self.clock.now())
            .detail("operation", order.operation.as_str())
            .detail("target", order.target.clone())
            .detail("content_sha256", order.digest())
    }
}
