//! A rotation: from one active key to the next, with an overlap in which both verify.

use serde::Serialize;

use crate::{key::Line, timestamp::Timestamp};

/// One rotation. Its id is that of the key it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub line: Line,
    pub to: u32,
    /// The key that was active before; none after a revocation, and for the first key.
    pub from: Option<u32>,
    pub started_at: Timestamp,
    pub overlap_until: Timestamp,
    pub emergency: bool,
    pub reason: String,
    pub initiated_by: String,
    pub notes: String,
    pub completed_at: Option<Timestamp>,
    pub cancelled_at: Option<Timestamp>,
    /// Completed before its overlap had ended.
    pub forced: bool,
}

/// Where a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RotationStatus {
    /// The overlap is running.
    InProgress,
    /// The overlap has ended by its deadline; the old key counts as retired.
    OverlapEnded,
    Completed,
    Cancelled,
}

impl Rotation {
    /// True while neither completed nor cancelled on record.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.completed_at.is_none() && self.cancelled_at.is_none()
    }

    /// The status at `now`; a deadline counts whether or not anything has run.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> RotationStatus {
        if self.cancelled_at.is_some() {
            RotationStatus::Cancelled
        } else if self.completed_at.is_some() || self.from.is_none() {
            RotationStatus::Completed
        } else if now >= self.overlap_until {
            RotationStatus::OverlapEnded
        } else {
            RotationStatus::InProgress
        }
    }
}
