//! What a fleet shares of its limits: failures of subjects, and the list of blocks. The buckets
//! themselves are charged by the nonce store, in the round trip that issues or spends a nonce
//! (`redis/charge.lua`).

use std::sync::{Arc, LazyLock};

use deadpool_redis::redis::Script;
use uuid::Uuid;

use super::{Block, blocks::REMEMBERED_DAYS};
use crate::{
    key::SignerId,
    quota,
    redis::{Failure, Pool, bucket_key, prefix},
};

static FAIL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!("#!lua flags=allow-oom\n", include_str!("../redis/charge.lua"), include_str!("fail.lua")))
});
static BLOCKS: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!("#!lua flags=allow-oom\n", include_str!("blocks.lua"))));

/// What one signer's appliances share, in Redis.
pub struct Shared {
    pool: Arc<Pool>,
    signer: SignerId,
    blocks: String,
}

impl Shared {
    /// What the appliances of `signer` share on these servers.
    #[must_use]
    pub fn new(pool: Arc<Pool>, signer: &SignerId) -> Self {
        Self { pool, signer: signer.clone(), blocks: format!("{}:blocks", prefix(signer)) }
    }

    /// Counts a failure; true when a cool-down begins with it.
    pub async fn fail(&self, failure: &quota::Failure) -> Result<bool, Failure> {
        let charge = failure.charge();
        let rest = quota::Failure::rest(failure.principal.clone(), failure.limit);
        let mut call = FAIL.key(bucket_key(&self.signer, &failure.principal));
        call.arg(charge.field()).arg(micros(charge.quota.interval)).arg(micros(charge.quota.window()));
        call.arg(rest.field()).arg(micros(failure.cool_down));
        Ok(self.pool.run::<u8>(&call).await? == 1)
    }

    /// Adds blocks to the fleet's list and takes others off; returns the whole list.
    pub async fn blocks(&self, add: &[Block], forget: &[Uuid]) -> Result<Vec<Block>, Failure> {
        const LIFE_MS: i64 = 2 * REMEMBERED_DAYS * 86_400_000;
        let mut call = BLOCKS.key(&self.blocks);
        call.arg(LIFE_MS);
        for block in add {
            let json = serde_json::to_string(block).expect("blocks are plain text");
            call.arg(block.id.to_string()).arg(json);
        }
        for id in forget {
            call.arg(id.to_string()).arg("");
        }
        let list: Vec<String> = self.pool.run(&call).await?;
        let block = |json: &String| {
            serde_json::from_str(json)
                .inspect_err(|error| tracing::warn!(%error, "a block in Redis cannot be read"))
                .ok()
        };
        Ok(list.iter().filter_map(block).collect())
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        limits::local::Local,
        quota::{Charge, Principal, Quota, Window},
        redis::{Config, charge, test_server::RedisServer},
    };

    static CHARGE: LazyLock<Script> = LazyLock::new(|| {
        let charge_all = "local refused = charge(#KEYS, 1)\nreturn refused or 0";
        Script::new(&format!("#!lua\n{}\n{charge_all}", include_str!("../redis/charge.lua")))
    });

    fn pool(server: &RedisServer) -> Arc<Pool> {
        let config =
            Config { url: Some(server.url().into()), command_timeout: Duration::from_secs(3), ..Config::default() };
        Arc::new(Pool::new(&config, &signer()).unwrap())
    }

    fn signer() -> SignerId {
        SignerId::parse("veid-signer-1").unwrap()
    }

    fn subject(name: &str) -> Principal {
        Principal::Subject(name.into())
    }

    fn email(name: &str, window: Window, burst: u32, count: u32) -> Charge {
        let quota = Quota::per(burst, Duration::from_secs(3600));
        Charge { principal: subject(name), limit: "email", window, quota, count }
    }

    /// Which charge Redis refuses, counted from one; zero for none.
    async fn refused(pool: &Pool, charges: &[Charge]) -> usize {
        let mut call = CHARGE.prepare_invoke();
        charge(&mut call, &signer(), charges);
        pool.run(&call).await.unwrap()
    }

    #[tokio::test]
    async fn redis_and_this_process_decide_alike() {
        let server = RedisServer::start(&[]);
        let (pool, local) = (pool(&server), Local::default());
        // Steps of a fixed walk; times are so long that none passes meanwhile.
        let mut state = 7_u32;
        let mut refusals = 0;
        for step in 0..300 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let name = ["a", "b", "c"][(state >> 8) as usize % 3];
            let charges = [
                email(name, Window::Hour, 40, 1 + (state >> 16) % 3),
                email(name, Window::Day, 70, 1 + (state >> 20) % 6),
            ];
            let here = local.take(&charges).err().map(|exceeded| exceeded.charge);
            let there = refused(&pool, &charges).await.checked_sub(1).map(|at| charges[at].clone());
            assert_eq!(here, there, "step {step}: {charges:?}");
            refusals += usize::from(here.is_some());
        }
        assert!((50..250).contains(&refusals), "{refusals}");
    }

    #[tokio::test]
    async fn cool_downs_begin_and_end_alike() {
        let server = RedisServer::start(&[]);
        let pool = pool(&server);
        let (shared, local) = (Shared::new(Arc::clone(&pool), &signer()), Local::default());
        let quota = Quota::per(3, Duration::from_secs(3600));
        let failure =
            quota::Failure { principal: subject("a"), limit: "email", quota, cool_down: Duration::from_secs(600) };
        let rest = [quota::Failure::rest(subject("a"), "email")];
        for number in 1..=7 {
            let began = number % 3 == 0;
            assert_eq!((shared.fail(&failure).await.unwrap(), local.fail(&failure)), (began, began), "{number}");
            let resting = number >= 3;
            assert_eq!((refused(&pool, &rest).await == 1, local.take(&rest).is_err()), (resting, resting), "{number}");
        }
        // A cool-down that has passed is over: the time it ends is all that is kept of it.
        let short = quota::Failure { principal: subject("b"), cool_down: Duration::ZERO, ..failure };
        for _ in 0..3 {
            shared.fail(&short).await.unwrap();
        }
        assert_eq!(refused(&pool, &[quota::Failure::rest(subject("b"), "email")]).await, 0);
    }
}
