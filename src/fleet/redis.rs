//! The lock of a fleet, in Redis. It runs out by itself when its holder dies; the fence in the
//! ledger's records keeps the ledger right when a holder outlives its lock.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use deadpool_redis::redis::Script;

use super::{Error, FleetLock, Guard};
use crate::{
    key::SignerId,
    redis::{Pool, prefix},
};

/// Longer than the longest lifecycle operation: generating a key may take half a minute.
const LIFE_SECONDS: u64 = 90;

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(concat!("#!lua\n", include_str!("acquire.lua"))));
static RELEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!("#!lua flags=allow-oom\n", include_str!("release.lua"))));

/// The lock of one signer's fleet.
pub struct RedisLock {
    pool: Arc<Pool>,
    lock: String,
    fence: String,
}

impl RedisLock {
    /// The lock of `signer` on these servers.
    #[must_use]
    pub fn new(pool: Arc<Pool>, signer: &SignerId) -> Self {
        let base = prefix(signer);
        Self { pool, lock: format!("{base}:fleet:lock"), fence: format!("{base}:fleet:fence") }
    }
}

/// Gives the lock back when dropped, in the background: if that fails, it runs out.
struct Held {
    pool: Arc<Pool>,
    lock: String,
    token: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut call = RELEASE.key(std::mem::take(&mut self.lock));
        call.arg(&self.token);
        let pool = Arc::clone(&self.pool);
        tokio::spawn(async move {
            if let Err(error) = pool.run::<String>(&call).await {
                tracing::warn!(%error, "the fleet lock was not given back; it runs out by itself");
            }
        });
    }
}

#[async_trait]
impl FleetLock for RedisLock {
    async fn acquire(&self, last_fence: u64) -> Result<Guard, Error> {
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| Error::Unavailable(Box::new(error)))?;
        let token = hex::encode(token);
        let mut call = ACQUIRE.key(&self.lock);
        call.key(&self.fence).arg(&token).arg(LIFE_SECONDS * 1000).arg(last_fence);
        let (outcome, fence): (String, String) =
            self.pool.run_if_fit(&call).await.map_err(|error| Error::Unavailable(Box::new(error)))?;
        if outcome != "acquired" {
            return Err(Error::Held);
        }
        let held = Held { pool: Arc::clone(&self.pool), lock: self.lock.clone(), token };
        match fence.parse() {
            Ok(fence) if fence > last_fence => Ok(Guard { fence, _held: Box::new(held) }),
            Ok(_) | Err(_) => Err(Error::Unavailable(format!("the lock drew no fence above {last_fence}").into())),
        }
    }
}
