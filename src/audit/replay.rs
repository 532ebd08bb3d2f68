//! Reading the trail as it must be: one record a line, numbered without a gap, each a leaf of the tree.
//!
//! What a crash tore stays in the file. The record right after it says how many bytes that were and
//! what their SHA-256 is; nothing else may stand between two records.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    merkle::{Frontier, leaf_hash},
    segment::Line,
};

/// The action of the record that accounts for torn bytes.
pub const REPAIR: &str = "repair_torn_record";

/// What the trail itself needs to know of a record.
#[derive(Debug, Deserialize)]
pub struct Head<'a> {
    pub sequence: u64,
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub actor: Cow<'a, str>,
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    #[serde(borrow)]
    pub outcome: Cow<'a, str>,
    #[serde(default)]
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    /// Of an outcome: the sequence of its intent.
    #[serde(default)]
    intent_sequence: Option<u64>,
    #[serde(default)]
    torn_bytes: Option<u64>,
    #[serde(default)]
    torn_sha256: Option<String>,
}

impl<'a> Head<'a> {
    /// Reads a line, if it is a record.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

/// Something that was announced and has no outcome yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenIntent {
    #[serde(rename = "type")]
    pub kind: String,
    pub actor: String,
    pub resource: String,
    pub action: String,
}

/// Bytes that are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Where they begin.
    pub offset: u64,
    /// How many, their last newline included.
    pub bytes: u64,
    /// SHA-256, in hex.
    pub sha256: String,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(
        "at byte {offset}: record {found} where {expected} must follow: records are missing, doubled or out of order"
    )]
    Sequence { offset: u64, expected: u64, found: u64 },
    #[error("at byte {offset}: {bytes} byte(s) that are no record, and record {before} does not account for them")]
    Garbage { offset: u64, bytes: u64, before: u64 },
    #[error("at byte {offset}: record {sequence} accounts for torn bytes that are not there")]
    TornBytesMissing { offset: u64, sequence: u64 },
    #[error("at byte {offset}: the file ends with {bytes} byte(s) that are no record")]
    Unfinished { offset: u64, bytes: u64 },
}

/// How far the trail has been read.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    pub tree: Frontier,
    /// Intents without an outcome, by sequence.
    pub open: BTreeMap<u64, OpenIntent>,
    torn: Option<(u64, u64, Sha256)>,
}

impl Replay {
    /// Goes on from a state that was kept.
    #[must_use]
    pub fn from(tree: Frontier, open: BTreeMap<u64, OpenIntent>) -> Self {
        Self { tree, open, torn: None }
    }

    /// The sequence of the next record.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.tree.size() + 1
    }

    /// Takes a whole line; the record, if it is one.
    pub fn line<'a>(&mut self, line: &Line<'a>) -> Result<Option<Head<'a>>, Fault> {
        let Some(head) = Head::parse(line.bytes) else {
            let (_, bytes, digest) = self.torn.get_or_insert_with(|| (line.offset, 0, Sha256::new()));
            digest.update(line.bytes);
            digest.update(b"\n");
            *bytes += line.bytes.len() as u64 + 1;
            return Ok(None);
        };
        let (offset, expected) = (line.offset, self.next_sequence());
        if head.sequence != expected {
            return Err(Fault::Sequence { offset, expected, found: head.sequence });
        }
        self.account_for_torn_bytes(offset, &head)?;
        self.note(&head);
        self.tree.append(leaf_hash(line.bytes));
        Ok(Some(head))
    }

    fn account_for_torn_bytes(&mut self, offset: u64, head: &Head<'_>) -> Result<(), Fault> {
        let is_repair = head.action == REPAIR;
        match self.torn() {
            None if is_repair => Err(Fault::TornBytesMissing { offset, sequence: head.sequence }),
            None => Ok(()),
            Some(torn) => {
                let told = (head.details.torn_bytes, head.details.torn_sha256.as_deref());
                if !is_repair || told != (Some(torn.bytes), Some(&torn.sha256)) {
                    return Err(Fault::Garbage { offset: torn.offset, bytes: torn.bytes, before: head.sequence });
                }
                self.torn = None;
                Ok(())
            }
        }
    }

    fn note(&mut self, head: &Head<'_>) {
        if let Some(intent) = head.details.intent_sequence {
            self.open.remove(&intent);
        }
        if head.outcome == "pending" {
            let intent = OpenIntent {
                kind: head.kind.to_string(),
                actor: head.actor.to_string(),
                resource: head.resource.to_string(),
                action: head.action.to_string(),
            };
            self.open.insert(head.sequence, intent);
        }
    }

    /// Bytes at the end that no record accounts for yet.
    #[must_use]
    pub fn torn(&self) -> Option<Torn> {
        let (offset, bytes, digest) = self.torn.clone()?;
        Some(Torn { offset, bytes, sha256: hex::encode(digest.finalize()) })
    }

    /// The end of a segment that is closed: everything is accounted for.
    pub fn end_of_segment(&self) -> Result<(), Fault> {
        match self.torn() {
            None => Ok(()),
            Some(torn) => Err(Fault::Unfinished { offset: torn.offset, bytes: torn.bytes }),
        }
    }
}
