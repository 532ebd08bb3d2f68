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

/// What came of [`Apart::run_and_wait`].
pub struct Waited {
    /// Of the calls, in order.
    pub answers: Vec<Result<Value, Failure>>,
    /// How many replicas have what they wrote.
    pub replicas: usize,
    /// Of the last call.
    pub then: String,
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
    /// the time allowed, then runs one more.
    ///
    /// WAIT does not wait inside a script or a transaction, so it is a command of its own, in the same
    /// round trip.
    pub async fn run_and_wait(&mut self, calls: &[Call], replicas: usize, then: &Call) -> Result<Waited, Failure> {
        let mut pipeline = Pipeline::with_capacity(calls.len() + 2);
        for call in calls {
            pipeline.invoke_script(call);
        }
        let patience = u64::try_from((self.timeout / 2).as_millis()).unwrap_or(u64::MAX);
        pipeline.cmd("WAIT").arg(replicas).arg(patience).invoke_script(then).ignore_errors();
        let running = pipeline.query_async::<Vec<RedisResult<Value>>>(&mut self.connection);
        let running = tokio::time::timeout(self.timeout, running);
        let mut answers = running.await.map_err(|_| Failure::Timeout(self.timeout))??;
        let then = last(&mut answers)?;
        let replicas = last(&mut answers)?;
        Ok(Waited { answers: answers.into_iter().map(|answer| Ok(answer?)).collect(), replicas, then })
    }
}

fn last<T: FromRedisValue>(answers: &mut Vec<RedisResult<Value>>) -> Result<T, Failure> {
    let value = answers.pop().ok_or_else(|| Failure::Reply("an answer is missing".into()))??;
    T::from_redis_value(value).map_err(|error| Failure::Reply(error.to_string()))
}
