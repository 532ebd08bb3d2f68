//! Who is turned away before anything is done: the blocked, and whoever asks too much. And what
//! becomes of those who misbehave.

use crate::{
    attestation::AttestationType,
    audit::{Event, EventType, Severity},
    client::Client,
    limits::{
        Block, Left, Target,
        abuse::{Change, Factor, Score},
        blocks::BY_SCORE,
    },
    nonce::Refusal,
    quota::{Exceeded, Principal},
    service::{Class, Error, Service},
};

impl Service {
    /// Lets a request from this address in, or says why not. Who asks is not known yet.
    pub async fn admit_address(&self, client: &Client) -> Result<(), Error> {
        if self.limits.is_exempt(client.address) {
            return Ok(());
        }
        if let Some(block) = self.limits.blocks.against(Some(client.address), None, None, self.clock.now()) {
            return Err(self.blocked(&block));
        }
        match self.limits.take_address(client.address) {
            Ok(()) => {
                self.count_checks(&["address"]);
                Ok(())
            }
            Err(exceeded) => Err(self.exceeded(client, exceeded).await),
        }
    }

    /// Lets a client in, or says why not.
    pub async fn admit_client(&self, client: &Client) -> Result<Option<Left>, Error> {
        let now = self.clock.now();
        if let Some(block) = self.limits.blocks.against(None, Some(&client.identity), None, now) {
            return Err(self.blocked(&block));
        }
        if !self.limits.config().enabled {
            return Ok(None);
        }
        let accountable = !self.limits.is_exempt(client.address);
        if accountable && self.limits.scores.is_one_too_many(client.address, &client.identity, now) {
            self.note_abuse(client, &[Principal::Address(client.address.into())], Factor::MultipleIdentities).await;
        }
        match self.limits.take_client(client) {
            Ok(left) => {
                self.count_checks(&["client"]);
                Ok(Some(left))
            }
            Err(exceeded) => Err(self.exceeded(client, exceeded).await),
        }
    }

    /// Lets a batch of so many in: it counts as so many requests, of which one has been admitted.
    pub async fn admit_batch(&self, client: &Client, count: usize) -> Result<(), Error> {
        self.in_service()?;
        match self.limits.take_more(client, count - 1) {
            Ok(()) => Ok(()),
            Err(exceeded) => Err(self.exceeded(client, exceeded).await),
        }
    }

    /// Refuses what is asked for a blocked subject.
    pub fn admit_subject(&self, subject: &str) -> Result<(), Error> {
        match self.limits.blocks.against(None, None, Some(subject), self.clock.now()) {
            Some(block) => Err(self.blocked(&block)),
            None => Ok(()),
        }
    }

    fn blocked(&self, block: &Block) -> Error {
        let limit = match block.target {
            Target::Address(_) => "address",
            Target::Client(_) => "client",
            Target::Subject(_) => "subject",
        };
        self.metrics.ratelimit_blocked.with_label_values(&[limit, "block"]).inc();
        Error::Blocked { id: block.id, until: block.expires_at }
    }

    pub(super) fn count_checks(&self, limits: &[&str]) {
        for limit in limits {
            self.metrics.ratelimit_checks.with_label_values(&[limit, "allowed"]).inc();
        }
    }

    /// Counts a refusal and records it: the first of its kind, and then one a minute with the
    /// number of those in between, so that a flood does not fill the trail.
    pub(super) async fn exceeded(&self, client: &Client, exceeded: Exceeded) -> Error {
        let (limit, reason) = (exceeded.charge.limit, exceeded.charge.window.as_str());
        self.metrics.ratelimit_checks.with_label_values(&[limit, "refused"]).inc();
        self.metrics.ratelimit_blocked.with_label_values(&[limit, reason]).inc();
        let now = self.clock.now();
        if let Some(unrecorded) = self.limits.is_news(&exceeded.charge, now) {
            let resource = exceeded.charge.principal.to_string();
            let event = Event::of_client(EventType::RateLimitExceeded, "limit", resource, client, now)
                .failed(Severity::Warning)
                .detail("limit", limit)
                .detail("reason", reason)
                .detail("retry_after_seconds", exceeded.retry_after_seconds())
                .detail("not_recorded_before", unrecorded);
            self.record_or_warn(event, "a refusal").await;
        }
        let mut principals = self.accountable(client);
        if matches!(exceeded.charge.principal, Principal::Subject(_)) {
            principals.push(exceeded.charge.principal.clone());
        }
        self.note_abuse(client, &principals, Factor::HighRequestRate).await;
        Error::Limited(Box::new(exceeded))
    }

    /// An attestation was refused: that counts against its subject, and may count against whoever
    /// asked.
    pub(super) async fn note_failure(&self, client: &Client, kind: AttestationType, subject: &str, error: &Error) {
        let own_fault = error.class() == Class::Caller
            && !matches!(error, Error::Blocked { .. } | Error::Limited(_) | Error::NotPermitted(_));
        if !self.limits.config().enabled || !own_fault {
            return;
        }
        for limit in self.limits.fail(kind, subject).await {
            tracing::info!(limit, subject, "too many failures: a cool-down begins");
        }
        let subject = Principal::Subject(subject.to_owned());
        let principals = self.accountable(client);
        // Whoever asks about a subject can do this to it: it is never enough to block it.
        let with_subject: Vec<_> = principals.iter().cloned().chain([subject]).collect();
        self.note_abuse(client, &with_subject, Factor::RepeatedFailures).await;
        let factor = match error {
            Error::NonceReplayed { .. }
            | Error::Nonce(Refusal::AlreadyUsed | Refusal::IssuerMismatch | Refusal::NotFound) => {
                Factor::SuspiciousPattern
            }
            Error::Nonce(Refusal::InvalidTimestamp) => Factor::TemporalAnomaly,
            _ => return,
        };
        self.note_abuse(client, &principals, factor).await;
    }

    /// A request that is no part of the interface.
    pub async fn note_stray_request(&self, client: &Client) {
        if self.limits.config().enabled {
            self.note_abuse(client, &self.accountable(client), Factor::BotBehavior).await;
        }
    }

    /// The highest abuse scores, highest first; the gauges are brought up to date with them.
    pub fn highest_scores(&self, count: usize) -> Vec<Score> {
        let now = self.clock.now();
        let scores = self.limits.scores.highest(usize::MAX, |principal| self.limits.blocks.knows(principal, now), now);
        for kind in ["client", "address", "subject"] {
            let highest =
                scores.iter().find(|score| score.identifier.starts_with(kind)).map_or(0.0, |score| score.score);
            self.metrics.abuse_score.with_label_values(&[kind]).set(highest);
        }
        scores.into_iter().take(count).collect()
    }

    /// One score, explained.
    pub fn score(&self, principal: &Principal) -> Score {
        let now = self.clock.now();
        self.limits.scores.explain(principal, self.limits.blocks.knows(principal, now), now)
    }

    /// Who answers for what a client does: the client, and its address unless that is exempt.
    fn accountable(&self, client: &Client) -> Vec<Principal> {
        let address = (!self.limits.is_exempt(client.address)).then(|| Principal::Address(client.address.into()));
        [Principal::Client(client.identity.clone())].into_iter().chain(address).collect()
    }

    async fn note_abuse(&self, client: &Client, principals: &[Principal], factor: Factor) {
        let now = self.clock.now();
        for principal in principals {
            let known = self.limits.blocks.knows(principal, now);
            let change = self.limits.scores.note(principal, factor, known, now);
            if let Some(risk) = change.risen_to {
                tracing::warn!(%principal, score = change.score, risk = risk.as_str(), "the abuse score has risen");
                let event = Event::of_client(EventType::AbuseDetected, "score", principal.to_string(), client, now)
                    .of_severity(Severity::Warning)
                    .detail("score", change.score)
                    .detail("risk", risk.as_str());
                self.record_or_warn(event, "a refusal").await;
            }
            self.block_by_score(client, principal, change).await;
        }
    }

    async fn block_by_score(&self, client: &Client, principal: &Principal, change: Change) {
        let (now, target) = (self.clock.now(), Target::of(principal));
        // A loopback client without a name is everybody on this machine.
        let exempt = matches!(principal, Principal::Client(identity)
            if self.limits.is_exempt(client.address) && *identity == client.identity && identity.is_anonymous());
        if !change.blocks || exempt || self.limits.blocks.is_blocked(&target, now) {
            return;
        }
        let length = i64::try_from(self.limits.config().abuse.block_for.as_secs()).expect("checked: at most 30 days");
        let block = Block {
            id: uuid::Uuid::now_v7(),
            target,
            reason: format!("abuse score {:.0}", change.score),
            initiated_by: BY_SCORE.into(),
            actor: BY_SCORE.into(),
            created_at: now,
            expires_at: Some(now.plus_seconds(length)),
            removed_at: None,
            removed_by: None,
        };
        // Boxed: a rare step that would make the state of every request larger.
        let blocking = Box::pin(self.put_in_force(block, "abuse_score", |event| event.by(BY_SCORE)));
        if let Err(error) = blocking.await {
            tracing::error!(%error, %principal, "an abuser could not be blocked");
        }
    }
}
