//! Why Redis gave no answer that can be used.

use std::time::Duration;

use deadpool::managed::{PoolError, TimeoutType};
use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};

use super::health::Unfit;

/// A call that came to nothing. None of these says whether its script has run.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("no answer from Redis within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("no connection to Redis within the time allowed ({0})")]
    NoConnection(&'static str),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("the Sentinels name no master {0:?} that can be reached")]
    NoMaster(String, #[source] Option<RedisError>),
    #[error("Redis answered something that is not part of the protocol: {0}")]
    Reply(String),
}

impl Failure {
    /// Whether the connection is to be dropped and the call tried once more on a new one. The
    /// others would meet the same refusal again.
    #[must_use]
    pub fn is_of_the_connection(&self) -> bool {
        match self {
            Self::Timeout(_) => true,
            Self::NoConnection(_) | Self::NoMaster(..) | Self::Unfit(_) | Self::Reply(_) => false,
            Self::Redis(error) => {
                let wrong_server = matches!(
                    error.kind(),
                    ErrorKind::Server(
                        ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading
                    )
                );
                wrong_server || error.is_io_error() || error.is_unrecoverable_error()
            }
        }
    }

    /// Whether Redis refused for want of memory, before the script did anything.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Redis(error) if error.code() == Some("OOM"))
    }
}

impl From<PoolError<Failure>> for Failure {
    fn from(error: PoolError<Failure>) -> Self {
        match error {
            PoolError::Backend(failure) => failure,
            PoolError::Timeout(TimeoutType::Wait) => Self::NoConnection("all are being renewed"),
            PoolError::Timeout(TimeoutType::Create) => Self::NoConnection("connecting"),
            PoolError::Timeout(TimeoutType::Recycle) => Self::NoConnection("checking one"),
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                Self::NoConnection("the pool cannot be used")
            }
        }
    }
}
