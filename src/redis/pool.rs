//! The connections.
//!
//! deadpool-redis' own managers ask for a PING whenever a connection is taken: a round trip more
//! for every nonce, and a demoted master answers it too. They also lend a connection to one task at
//! a time. Here a connection is taken only to clone its handle and goes back at once, so that many
//! requests are in flight on each; and the server is looked at once a second, and at once after
//! anything went wrong. In between the scripts themselves refuse a server that is not the master.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::managed::{self, Metrics, PoolConfig, QueueMode, RecycleError, RecycleResult, Timeouts};
use deadpool_redis::{
    Runtime,
    redis::{FromRedisValue, Script},
};

use super::{
    Apart, Call, Config, HEALTH, HealthReply,
    failure::Failure,
    health::{Health, Unfit},
    prefix,
    server::{ConfigError, Connection, Servers},
};
use crate::key::SignerId;

/// How long a look at the server is good for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Connections to the server that is the master now.
pub struct Pool {
    connections: managed::Pool<Manager>,
    command_timeout: Duration,
    look: Call,
    description: String,
}

/// Makes connections and looks after them.
struct Manager {
    servers: Servers,
    look: Call,
    command_timeout: Duration,
}

/// One connection and what is known of it.
struct Link {
    connection: Connection,
    looked: Instant,
    /// What kept the server from holding nonces when it was last looked at.
    unfit: Option<Unfit>,
    /// Set by any user of the connection, for good.
    lost: Arc<AtomicBool>,
}

impl Pool {
    /// The way to the configured servers, for one signer's keys. Nothing is connected yet.
    pub fn new(config: &Config, signer: &SignerId) -> Result<Self, ConfigError> {
        let servers = Servers::from_config(config)?;
        // The key leads it, in a Cluster, to the node that holds the signer's keys.
        let look = || HEALTH.key(format!("{}:health", prefix(signer)));
        let (connections, command_timeout) = (config.connections, config.command_timeout);
        let description = config.describe();
        let manager = Manager { servers, look: look(), command_timeout };
        let timeouts = Timeouts {
            wait: Some(2 * command_timeout),
            create: Some(2 * command_timeout),
            recycle: Some(command_timeout),
        };
        // First in, first out: the load is spread over all connections.
        let config = PoolConfig { max_size: connections, timeouts, queue_mode: QueueMode::Fifo };
        let connections = managed::Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build();
        Ok(Self { connections: connections.expect("a runtime is given"), command_timeout, look: look(), description })
    }

    /// What the server says of itself now, fit or not.
    pub async fn health(&self) -> Result<Health, Failure> {
        Health::from_reply(&self.run(&self.look).await?)
    }

    /// A connection to the master, for one task alone, on which a round trip takes at most `timeout`.
    pub async fn apart(&self, timeout: Duration, scripts: &[&'static Script]) -> Result<Apart, Failure> {
        let connecting = async {
            let connection = self.connections.manager().servers.connect(self.command_timeout).await?;
            Apart::new(connection, timeout, scripts).await
        };
        let most = 2 * self.command_timeout;
        tokio::time::timeout(most, connecting).await.unwrap_or(Err(Failure::NoConnection("connecting")))
    }

    /// How long one command may take.
    #[must_use]
    pub fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// How long a call may take in all.
    #[must_use]
    pub fn most(&self) -> Duration {
        3 * self.command_timeout
    }

    /// Which servers these are. No secrets.
    #[must_use]
    pub fn describe(&self) -> String {
        self.description.clone()
    }

    /// Runs a script in one round trip. When the connection fails under it, it is sent once more
    /// over a new one; so a script may run twice for one call, and each is made to take that.
    ///
    /// Takes at most three times the command timeout. After an error the script may have run, may
    /// be about to run, or may never run.
    ///
    /// Runs on any master: what is begun can be ended, and what is wrong with it can be shown.
    pub async fn run<T: FromRedisValue>(&self, call: &Call) -> Result<T, Failure> {
        self.run_twice_at_most(call, |_| Ok(())).await
    }

    /// As [`Pool::run`], but only on a server that may keep nonces: for issuing and spending.
    pub async fn run_if_fit<T: FromRedisValue>(&self, call: &Call) -> Result<T, Failure> {
        self.run_twice_at_most(call, Link::fit).await
    }

    async fn run_twice_at_most<T: FromRedisValue>(&self, call: &Call, accepts: Accepts) -> Result<T, Failure> {
        let most = self.most();
        let calling = async {
            match self.run_once(call, accepts).await {
                Err(failure) if failure.is_of_the_connection() => self.run_once(call, accepts).await,
                done => done,
            }
        };
        tokio::time::timeout(most, calling).await.unwrap_or(Err(Failure::Timeout(most)))
    }

    async fn run_once<T: FromRedisValue>(&self, call: &Call, accepts: Accepts) -> Result<T, Failure> {
        let link = self.connections.get().await?;
        accepts(&link)?;
        let (mut connection, lost) = (link.connection.clone(), Arc::clone(&link.lost));
        drop(link);
        let done = answer(call, &mut connection, self.command_timeout).await;
        if done.as_ref().is_err_and(Failure::is_of_the_connection) {
            lost.store(true, Ordering::Relaxed);
        }
        done
    }
}

/// Whether a call may use a connection.
type Accepts = fn(&Link) -> Result<(), Unfit>;

impl Link {
    fn fit(&self) -> Result<(), Unfit> {
        self.unfit.clone().map_or(Ok(()), Err)
    }
}

impl managed::Manager for Manager {
    type Type = Link;
    type Error = Failure;

    async fn create(&self) -> Result<Link, Failure> {
        let mut connection = self.servers.connect(self.command_timeout).await?;
        let unfit = self.look(&mut connection).await?;
        Ok(Link { connection, looked: Instant::now(), unfit, lost: Arc::default() })
    }

    async fn recycle(&self, link: &mut Link, _: &Metrics) -> RecycleResult<Failure> {
        if link.lost.load(Ordering::Relaxed) {
            return Err(RecycleError::message("lost"));
        }
        if link.unfit.is_some() || link.looked.elapsed() >= LOOK_EVERY {
            link.unfit = self.look(&mut link.connection).await?;
            link.looked = Instant::now();
        }
        Ok(())
    }
}

impl Manager {
    /// Is this the master? Then: what keeps it from holding nonces?
    async fn look(&self, connection: &mut Connection) -> Result<Option<Unfit>, Failure> {
        let reply: HealthReply = answer(&self.look, connection, self.command_timeout).await?;
        let health = Health::from_reply(&reply)?;
        health.check_server()?;
        Ok(health.check_settings().err())
    }
}

async fn answer<T: FromRedisValue>(call: &Call, on: &mut Connection, within: Duration) -> Result<T, Failure> {
    match tokio::time::timeout(within, call.invoke_async(on)).await {
        Ok(answered) => Ok(answered?),
        Err(_) => Err(Failure::Timeout(within)),
    }
}
