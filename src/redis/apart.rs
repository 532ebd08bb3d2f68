//! A connection that one task has to itself, where WAIT speaks of that task's own writes: "the number
//! of replicas that acknowledged all the write commands sent in the context of the current
//! connection" (Redis, WAIT).

use std::time::Duration;

use deadpool_redis::redis::{FromRedisValue, Pipeline, RedisResult, Script, Value};

use super::{Call, failure::Failure, server::Connection};

/// Such a connection.
pub struct Apart {
    connection: Connection,
    timeout: Duration,
}

impl Apart {
    /// Takes this connection; loads the scripts that will be called on it.
    pub(super) async fn new(
        mut connection: Connection,
        timeout: Duration,
        scripts: &[&'static Script],
    ) -> Result<Self, Failure> {
        for script in scripts {
            script.load_async(&mut connection).await?;
        }
        Ok(Self { connection, timeout })
    }

    /// Runs the calls in order, then waits until so many replicas have everything they wrote, for half
    /// the time allowed. Answers of the calls, and how many replicas it were.
    ///
    /// WAIT does not wait inside a script or a transaction, so it follows as a command of its own, in
    /// the same round trip.
    pub async fn run_and_wait(
        &mut self,
        calls: &[Call],
        replicas: usize,
    ) -> Result<(Vec<Result<Value, Failure>>, usize), Failure> {
        let mut pipeline = Pipeline::with_capacity(calls.len() + 1);
        for call in calls {
            pipeline.invoke_script(call);
        }
        let patience = u64::try_from((self.timeout / 2).as_millis()).unwrap_or(u64::MAX);
        pipeline.cmd("WAIT").arg(replicas).arg(patience).ignore_errors();
        let running = pipeline.query_async::<Vec<RedisResult<Value>>>(&mut self.connection);
        let running = tokio::time::timeout(self.timeout, running);
        let mut answers = running.await.map_err(|_| Failure::Timeout(self.timeout))??;
        let acknowledged = answers.pop().ok_or_else(|| Failure::Reply("WAIT was not answered".into()))??;
        let acknowledged = usize::from_redis_value(acknowledged).map_err(|_| Failure::Reply("WAIT".into()))?;
        Ok((answers.into_iter().map(|answer| Ok(answer?)).collect(), acknowledged))
    }
}
