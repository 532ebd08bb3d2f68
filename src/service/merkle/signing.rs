//! A batch and its one signature.

use std::sync::{Arc, OnceLock};

use super::gathering::{Outcome, Slot, Waiting};
use crate::{
    attestation::{AttestationTree, Inclusion},
    audit::Event,
    evidence::Warrant,
    key::KeyEntry,
    service::{
        Error, Service,
        attest::{Signed, signed_event},
        policy::permit_key,
        release::{Released, Usage},
    },
    timestamp::Timestamp,
};

/// A root over attestations, each with its permit and its spent nonce.
struct RootOrder {
    statement: Vec<u8>,
    covers: usize,
}

impl Warrant for RootOrder {
    fn message(&self) -> &[u8] {
        &self.statement
    }

    fn covers(&self) -> usize {
        self.covers
    }
}

/// A batch with what is signed for it, and where each of them stands in the tree.
struct Batch {
    members: Vec<Waiting>,
    tree: AttestationTree,
    places: OnceLock<Vec<Inclusion>>,
    root: RootOrder,
}

impl Batch {
    /// Back, when there are none or too many.
    fn new(members: Vec<Waiting>) -> Result<Self, Vec<Waiting>> {
        let Some(tree) = AttestationTree::of_leaves(members.iter().map(|member| member.leaf)) else {
            return Err(members);
        };
        let root = RootOrder { statement: tree.root_statement(), covers: members.len() };
        Ok(Self { members, tree, places: OnceLock::new(), root })
    }

    /// Found while the token signs, which needs the root alone.
    fn places(&self) -> &[Inclusion] {
        self.places.get_or_init(|| self.tree.inclusions().collect())
    }

    /// A record of each.
    fn events(&self, key: &KeyEntry, now: Timestamp) -> Vec<Event> {
        let event = |(member, place): (&Waiting, &Inclusion)| {
            signed_event(&member.order, key, now)
                .detail("merkle_leaf_index", place.leaf_index())
                .detail("merkle_tree_size", place.tree_size())
        };
        self.members.iter().zip(self.places()).map(event).collect()
    }
}

impl Service {
    /// Signs the root over these, by the key of whatever token signs now, and tells each what came of it.
    pub(super) async fn sign_together(self: Arc<Self>, members: Vec<Waiting>, slot: Slot) {
        let mut slot = Some(slot);
        let mut turns = match self.turns() {
            Ok(turns) => turns,
            Err(error) => return refuse(members, error),
        };
        let mut members = members;
        while let Some(key) = turns.key().cloned() {
            let batch = match Batch::new(self.issued_by(&key, members)) {
                Ok(batch) => batch,
                Err(members) => return refuse(members, Error::Internal("a batch of no size")),
            };
            #[expect(clippy::cast_precision_loss, reason = "at most 65536")]
            self.metrics.merkle_batch_size.observe(batch.members.len() as f64);
            let events = |now| {
                // The token has signed: its session is for the next batch.
                drop(slot.take());
                batch.events(&key, now)
            };
            let released = self.sign_and_release_all(Usage::Sign(&mut turns), &batch.root, events);
            let meanwhile = async {
                batch.places();
            };
            // In this order: the token is asked first.
            let (released, ()) = tokio::join!(biased; released, meanwhile);
            let refusal = match released {
                Ok(released) => return self.hand_out(batch, &key, &released).await,
                Err(refusal) => refusal,
            };
            members = batch.members;
            if let Err(error) = self.taken_over(&mut turns, &key, refusal) {
                return refuse(members, error);
            }
        }
        refuse(members, Error::NoActiveKey);
    }

    /// Keeps for retries what each has got, and gives it to them. Whoever has gone needs no answer.
    async fn hand_out(&self, batch: Batch, key: &Arc<KeyEntry>, released: &Released) {
        let Batch { members, tree, places, .. } = batch;
        let places = places.into_inner().unwrap_or_else(|| tree.inclusions().collect());
        let places = places.into_iter().zip(released.audit_sequence..);
        let (mut spent, mut answers) = (Vec::new(), Vec::new());
        for (member, (place, audit_sequence)) in members.into_iter().zip(places) {
            let signed = Signed::new(Arc::clone(key), released, audit_sequence, Some(place));
            let (its, concluded) = member.order.concluded(signed);
            spent.push(its);
            answers.push((member.answer, Box::new(concluded)));
        }
        let settled = spent.into_iter().zip(answers.iter().map(|(_, concluded)| concluded.kept())).collect();
        // Past the commit point: a store that cannot keep an answer only makes a retry fail.
        for error in self.nonces.settle_all(settled).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "an answer could not be kept for retries");
        }
        for (answer, concluded) in answers {
            let _ = answer.send(Outcome::Signed(concluded));
        }
    }

    /// The same orders, issued by this key: it may have come after them. Those whose client may not use it are
    /// told so.
    fn issued_by(&self, key: &Arc<KeyEntry>, members: Vec<Waiting>) -> Vec<Waiting> {
        let issued = members.into_iter().filter_map(|mut member| {
            if let Err(error) = permit_key(member.order.client(), &key.id, true) {
                let _ = member.answer.send(Outcome::Failed(Some(member.order), error));
                return None;
            }
            member.issue(&self.signer, key);
            Some(member)
        });
        issued.collect()
    }
}

/// Tells all of them the same.
fn refuse(members: Vec<Waiting>, error: Error) {
    let error = Arc::new(error);
    for member in members {
        let _ = member.answer.send(Outcome::Failed(Some(member.order), Error::Shared(Arc::clone(&error))));
    }
}
