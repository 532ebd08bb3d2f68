//! Blocks, as security staff set and lift them.

use uuid::Uuid;

use crate::{
    attestation::InvalidField,
    audit::{Event, EventType, Severity},
    limits::{Block, Target},
    quota::Principal,
    service::{Error, Service, lifecycle::Actor},
};

/// A block that is wanted.
#[derive(Clone, Debug)]
pub struct BlockOrder {
    pub target: Target,
    pub reason: String,
    /// Left out: until it is lifted.
    pub duration_seconds: Option<u64>,
}

/// Longest block that ends by itself.
const MAX_SECONDS: u64 = 10 * 365 * 86_400;

impl Service {
    /// Blocks somebody: from the answer on here, and within a second on every appliance.
    pub async fn block(&self, order: BlockOrder, actor: &Actor) -> Result<Block, Error> {
        let now = self.clock.now();
        let seconds = match order.duration_seconds {
            Some(seconds) if !(1..=MAX_SECONDS).contains(&seconds) => {
                return Err(
                    InvalidField { field: "duration_seconds", detail: "expected 1 to 315360000 seconds" }.into()
                );
            }
            seconds => seconds.map(|seconds| i64::try_from(seconds).expect("checked: at most ten years")),
        };
        if let Target::Address(network) = &order.target
            && self.limits.config().exempt.iter().any(|exempt| exempt.contains(network) || network.contains(exempt))
        {
            let detail =
                "the address is exempt, or the network holds one that is: change limits.exempt, or block clients";
            return Err(InvalidField { field: "address", detail }.into());
        }
        if let Some(client) = &actor.client
            && (order.target.covers(&Principal::Client(client.identity.clone()))
                || order.target.covers(&Principal::Address(client.address.into())))
        {
            return Err(InvalidField { field: "(body)", detail: "this would block whoever asks for it" }.into());
        }
        let block = Block {
            id: Uuid::now_v7(),
            target: order.target,
            reason: order.reason,
            initiated_by: actor.initiated_by.clone(),
            actor: actor.name.clone(),
            created_at: now,
            expires_at: seconds.map(|seconds| now.plus_seconds(seconds)),
            removed_at: None,
            removed_by: None,
        };
        self.put_in_force(block.clone(), "operator", |event| actor.asked(event)).await?;
        Ok(block)
    }

    pub(super) async fn put_in_force(
        &self,
        block: Block,
        reason: &'static str,
        by: impl FnOnce(Event) -> Event,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let target = serde_json::to_value(&block.target).expect("a target is plain text");
        let event = Event::of_service(EventType::IpBanned, "block", block.id.to_string(), now)
            .of_severity(Severity::Warning)
            .detail("target", target)
            .detail("reason", block.reason.clone())
            .detail("initiated_by", block.initiated_by.clone())
            .detail("expires_at", block.expires_at.map(|at| at.to_string()));
        let event = by(event);
        let work = async { Ok(self.limits.blocks.add(block, now)?) };
        self.on_record(event.clone(), work, |()| event).await?;
        self.metrics.ratelimit_bans.with_label_values(&[reason]).inc();
        self.tell_fleet_of_blocks().await;
        Ok(())
    }

    /// Lifts a block.
    pub async fn unblock(&self, id: &str, actor: &Actor) -> Result<Block, Error> {
        let now = self.clock.now();
        let unknown = || unknown(id);
        let uuid = Uuid::parse_str(id).map_err(|_| unknown())?;
        // Nobody is banned by it: who is let in is changed.
        let event = actor.event(EventType::ConfigChanged, "unblock", &uuid.to_string(), now);
        let work = async { self.limits.blocks.remove(uuid, &actor.name, now)?.ok_or_else(unknown) };
        let block = self.on_record(event.clone(), work, |_| event).await?;
        self.tell_fleet_of_blocks().await;
        Ok(block)
    }

    /// A block, in force or remembered.
    pub fn find_block(&self, id: &str) -> Result<Block, Error> {
        let found = Uuid::parse_str(id).ok().and_then(|id| self.limits.blocks.one(id));
        // By the id as it is written in answers.
        let found = found.filter(|block| block.id.to_string() == id);
        found.ok_or_else(|| unknown(id))
    }

    /// Others learn of it with their next look anyway.
    async fn tell_fleet_of_blocks(&self) {
        if let Err(error) = self.limits.share_blocks(self.clock.now()).await {
            tracing::warn!(%error, "the fleet was not told of a block yet");
        }
    }
}

fn unknown(id: &str) -> Error {
    Error::UnknownBlock(id.chars().take(64).collect())
}
