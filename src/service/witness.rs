//! The fleet as witness: every appliance keeps the last checkpoint of every other's audit log, and
//! tells. One that finds itself behind, or beside, what others remember signs nothing until an
//! operator decides.

use std::collections::BTreeMap;

use tokio::sync::Mutex;

use crate::{
    audit::{
        Event, EventType, Severity,
        checkpoint::Checkpoint,
        witness::{Memory, Request},
    },
    fleet::Handed,
    service::{Error, Service},
};

/// This appliance's memory of logs, and what it knows of the other witnesses.
pub struct Witness(Mutex<State>);

struct State {
    memory: Memory,
    /// How far each witness follows our log.
    followed: BTreeMap<String, u64>,
    /// Notes that were refused as evidence of two histories, and are on record.
    accused: Vec<String>,
}

impl Witness {
    /// A witness with this memory.
    #[must_use]
    pub fn new(memory: Memory) -> Self {
        Self(Mutex::new(State { memory, followed: BTreeMap::new(), accused: Vec::new() }))
    }
}

impl Service {
    /// Remembers a checkpoint of our own beside the trail, where a copy of the trail does not reach.
    pub(super) async fn remember_own(&self, note: &str) -> Result<(), Error> {
        let mut state = self.witness.0.lock().await;
        if let Some(key) = self.checkpoints.key() {
            state.memory.know(&[key.public_key().clone()]);
        }
        state.memory.remember(self.checkpoints.origin(), note).map_err(|error| {
            tracing::warn!(%error, "a checkpoint could not be remembered in the state directory");
            Error::Internal("a checkpoint could not be remembered")
        })
    }

    /// One exchange with the fleet.
    pub async fn witness_round(&self) -> Result<(), Error> {
        let mut state = self.witness.0.lock().await;
        let origin = self.checkpoints.origin();
        let note = self.last_checkpoint().await?;
        let own = note.as_deref().and_then(|note| state.memory.open(note)).filter(|own| own.origin == origin);
        let mut handed = Handed {
            origin: origin.to_owned(),
            size: own.as_ref().map_or(0, |own| own.size),
            note: note.clone().filter(|_| own.is_some()),
            answers: state.memory.others(origin).map(|(origin, note)| (origin.clone(), note.clone())).collect(),
            submissions: Vec::new(),
        };
        if let Some((own, note)) = own.zip(note) {
            handed.submissions = self.submissions(&state, &own, &note).await?;
        }
        let received = self.fleet.exchange(&handed).await?;
        let head = received.head.map(|note| ("the fleet's memory in Redis".to_owned(), note));
        for (witness, note) in received.answers.into_iter().chain(head) {
            let Some(seen) = state.memory.open(&note).filter(|seen| seen.origin == origin) else { continue };
            self.compare_with_witness(&witness, &seen).await?;
            state.followed.insert(witness, seen.size);
        }
        for request in received.submissions {
            self.witness_request(&mut state, &request).await?;
        }
        Ok(())
    }

    /// Requests to every member that does not follow as far as our last checkpoint.
    async fn submissions(&self, state: &State, own: &Checkpoint, note: &str) -> Result<Vec<(String, String)>, Error> {
        let mut submissions = Vec::new();
        for member in self.fleet.members().await? {
            let old_size = state.followed.get(&member.instance).copied().unwrap_or(0);
            if member.instance == self.instance || old_size >= own.size {
                continue;
            }
            let proof = self.prove_consistency(old_size, own.size).await?.path;
            let request = Request { old_size, proof, note: note.to_owned() };
            submissions.push((member.instance, request.to_text()));
        }
        Ok(submissions)
    }

    /// Whether our log is the one that a witness has seen.
    async fn compare_with_witness(&self, witness: &str, seen: &Checkpoint) -> Result<(), Error> {
        let records = self.audit.size();
        let what = if seen.size > records {
            format!("remembers {} records of this audit trail, but there are only {records}", seen.size)
        } else if self.root_of_trail(seen.size).await? == seen.root {
            return Ok(());
        } else {
            format!("remembers other records up to {} of this audit trail", seen.size)
        };
        let why = format!(
            "{witness} {what}: it was rolled back or forked, and nothing is signed. Find the trail that they remember; \
             or restart: the start says how to go on with this one"
        );
        if self.audit.trouble_with_head().is_ok() {
            tracing::error!("{why}");
            self.audit.withhold_signatures(Some(why.clone()));
            let event = Event::of_service(EventType::SecurityAlert, "trail_behind_witness", witness, self.clock.now());
            self.audit.record(event.failed(Severity::Critical).detail("what", why)).await?;
        }
        Ok(())
    }

    /// Judges what another appliance asks this witness.
    async fn witness_request(&self, state: &mut State, text: &str) -> Result<(), Error> {
        let Some(request) = Request::parse(text) else { return Ok(()) };
        let Err(refusal) = state.memory.witness(&request) else { return Ok(()) };
        if !refusal.accuses() || state.accused.contains(&request.note) {
            // Mostly a log that does not know yet how far this witness follows: the answer tells it.
            tracing::debug!(%refusal, "a checkpoint was not witnessed");
            return Ok(());
        }
        let origin = request.note.lines().next().unwrap_or_default().to_owned();
        tracing::error!(origin, %refusal, "another appliance's audit log has two histories");
        let event = Event::of_service(EventType::SecurityAlert, "refuse_to_witness", origin, self.clock.now());
        self.audit.record(event.failed(Severity::Critical).detail("refusal", refusal.to_string())).await?;
        state.accused.push(request.note);
        Ok(())
    }
}
