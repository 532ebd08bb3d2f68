//! Asking Sentinels who the master is.
//!
//! redis-rs has a Sentinel client too. It asks the Sentinels in the order of the configuration with
//! timeouts of its own, so that one frozen Sentinel can use up the time of every call; it takes the
//! first answer, not the newest; and a pool can use it for one connection at a time only.

use std::{collections::HashMap, time::Duration};

use deadpool_redis::redis::{self, Client, RedisError, aio::MultiplexedConnection};
use tokio::task::JoinSet;

use super::{
    failure::Failure,
    server::{Credentials, timeouts},
};

/// The Sentinels of one master.
pub struct Sentinels {
    sentinels: Vec<Client>,
    master: String,
    tls: bool,
    nodes: Credentials,
}

/// What one Sentinel says.
struct Master {
    host: String,
    port: u16,
    /// Grows with every failover: of two answers the greater is the newer.
    epoch: u64,
}

impl Sentinels {
    pub fn new(sentinels: Vec<Client>, master: String, tls: bool, nodes: Credentials) -> Self {
        Self { sentinels, master, tls, nodes }
    }

    /// Connects to the newest master that a majority of the Sentinels knows. That it is a master
    /// indeed is checked on the connection, as on every other.
    pub async fn connect(&self, timeout: Duration) -> Result<MultiplexedConnection, Failure> {
        let Master { host, port, .. } = self.find_master(timeout).await?;
        let unusable = |_| Failure::NoMaster(self.master.clone(), None);
        let client = self.nodes.client_at(host, port, self.tls).map_err(unusable)?;
        Ok(client.get_multiplexed_async_connection_with_config(&timeouts(timeout)).await?)
    }

    /// Asks all at once, and waits for the slowest only until a majority has answered.
    async fn find_master(&self, timeout: Duration) -> Result<Master, Failure> {
        let mut asked = JoinSet::new();
        for sentinel in &self.sentinels {
            asked.spawn(ask(sentinel.clone(), self.master.clone(), timeout));
        }
        let majority = self.sentinels.len() / 2 + 1;
        let (mut answers, mut last_error) = (Vec::new(), None);
        while answers.len() < majority
            && let Some(joined) = asked.join_next().await
        {
            match joined {
                Ok(Ok(master)) => answers.push(master),
                Ok(Err(error)) => last_error = Some(error),
                // Cancelled with the runtime, or a panic that has been reported already.
                Err(_) => {}
            }
        }
        let newest = answers.into_iter().max_by_key(|master| master.epoch);
        newest.ok_or_else(|| Failure::NoMaster(self.master.clone(), last_error))
    }
}

async fn ask(sentinel: Client, name: String, timeout: Duration) -> Result<Master, RedisError> {
    let mut connection = sentinel.get_multiplexed_async_connection_with_config(&timeouts(timeout)).await?;
    let fields: HashMap<String, String> =
        redis::cmd("SENTINEL").arg("MASTER").arg(name).query_async(&mut connection).await?;
    let field = |name: &str| fields.get(name).map(String::as_str);
    let (host, port, epoch) = (field("ip"), field("port"), field("config-epoch"));
    let parsed = (|| Some(Master { host: host?.into(), port: port?.parse().ok()?, epoch: epoch?.parse().ok()? }))();
    parsed.ok_or_else(|| (redis::ErrorKind::UnexpectedReturnType, "SENTINEL MASTER without an address").into())
}
