//! A fleet's lock and its members' reports, in Redis. The lock runs out by itself when its holder dies; the fence in the
//! ledger's records keeps the ledger right when a holder outlives its lock.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use deadpool_redis::redis::Script;

use super::{Error, Fleet, Guard, Handed, Held, LOCK_LIFE, Member, Memory, Received, Returns};
use crate::{
    key::{SignerId, seen::Seen},
    redis::{Failure, Pool, prefix},
};

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(concat!("#!lua\n", include_str!("acquire.lua"))));
static RELEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!("#!lua flags=allow-oom\n", include_str!("release.lua"))));

static REPORT: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!("#!lua flags=allow-oom\n", include_str!("report.lua"))));
static WITNESS: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!("#!lua flags=allow-oom\n", include_str!("witness.lua"))));
static VIEW: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!("#!lua flags=no-writes\n", include_str!("view.lua"))));

/// Answered by `view.lua`: records, head, revoked keys, members with their revocations.
type View = (u64, String, Vec<String>, Vec<(String, u64)>);

/// The fleet of one signer.
pub struct RedisFleet {
    pool: Arc<Pool>,
    instance: String,
    lock: String,
    fence: String,
    members: String,
    furthest: String,
    revoked: String,
    heads: String,
    submissions: String,
    answers: String,
    returns: Returns,
}

impl RedisFleet {
    /// The fleet of `signer` on these servers, of which this appliance is `instance`.
    #[must_use]
    pub fn new(pool: Arc<Pool>, signer: &SignerId, instance: &str) -> Self {
        let key = |name| format!("{}:fleet:{name}", prefix(signer));
        Self {
            pool,
            instance: instance.to_owned(),
            lock: key("lock"),
            fence: key("fence"),
            members: key("members"),
            furthest: key("ledger"),
            revoked: key("revoked"),
            heads: key("audit-heads"),
            submissions: key("audit-submissions"),
            answers: key("audit-answers"),
            returns: Returns::default(),
        }
    }

    async fn view(&self) -> Result<View, Error> {
        let mut call = VIEW.key(&self.members);
        call.key(&self.furthest).key(&self.revoked);
        Ok(self.pool.run(&call).await?)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(Box::new(failure))
    }
}

/// The lock in Redis, under a token of our own.
struct RedisLock {
    pool: Arc<Pool>,
    lock: String,
    token: String,
}

#[async_trait]
impl Held for RedisLock {
    async fn release(self: Box<Self>) {
        let mut call = RELEASE.key(&self.lock);
        call.arg(&self.token);
        if let Err(error) = self.pool.run::<String>(&call).await {
            tracing::warn!(%error, "the fleet lock was not given back; it runs out by itself");
        }
    }
}

#[async_trait]
impl Fleet for RedisFleet {
    async fn acquire(&self, last_fence: u64) -> Result<Guard, Error> {
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| Error::Unavailable(Box::new(error)))?;
        let token = hex::encode(token);
        let mut call = ACQUIRE.key(&self.lock);
        call.key(&self.fence).arg(&token).arg(LOCK_LIFE.as_millis()).arg(last_fence);
        let held = RedisLock { pool: Arc::clone(&self.pool), lock: self.lock.clone(), token };
        // Dropped when no answer comes: the lock may have been taken all the same.
        let mut guard = Guard::new(0, held, &self.returns);
        let (outcome, fence): (String, String) = self.pool.run_if_fit(&call).await?;
        if outcome != "acquired" {
            guard.held = None;
            return Err(Error::Held);
        }
        match fence.parse() {
            Ok(fence) if fence > last_fence => {
                guard.fence = fence;
                Ok(guard)
            }
            Ok(_) | Err(_) => Err(Error::Unavailable(format!("the lock drew no fence above {last_fence}").into())),
        }
    }

    async fn given_back(&self) {
        self.returns.done().await;
    }

    async fn report(&self, seen: &Seen, memory: Memory) -> Result<(), Error> {
        let mut call = REPORT.key(&self.members);
        call.key(&self.furthest).key(&self.revoked);
        call.arg(&self.instance).arg(seen.ledger_records).arg(&seen.ledger_head);
        call.arg(match memory {
            Memory::Further => "further",
            Memory::Anew => "anew",
        });
        for key in &seen.revoked {
            call.arg(key);
        }
        self.pool.run::<String>(&call).await?;
        Ok(())
    }

    async fn remembered(&self) -> Result<Option<Seen>, Error> {
        let (ledger_records, ledger_head, revoked, _) = self.view().await?;
        let revoked = revoked.into_iter().collect();
        Ok((ledger_records > 0).then_some(Seen { ledger_records, ledger_head, revoked }))
    }

    async fn exchange(&self, handed: &Handed) -> Result<Received, Error> {
        let mut call = WITNESS.key(&self.heads);
        call.key(&self.submissions).key(&self.answers);
        call.arg(&self.instance).arg(&handed.origin).arg(handed.size).arg(handed.note.as_deref().unwrap_or_default());
        for (witness, request) in &handed.submissions {
            call.arg("submit").arg(witness).arg(request);
        }
        for (origin, note) in &handed.answers {
            call.arg("answer").arg(origin).arg(note);
        }
        let (head, submissions, answers): (String, Vec<String>, Vec<(String, String)>) = self.pool.run(&call).await?;
        Ok(Received { head: Some(head).filter(|head| !head.is_empty()), submissions, answers })
    }

    async fn members(&self) -> Result<Vec<Member>, Error> {
        let (_, _, _, members) = self.view().await?;
        Ok(members.into_iter().map(|(instance, revocations)| Member { instance, revocations }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{Config, test_proxy::Proxy, test_server::RedisServer};

    fn member(url: String) -> RedisFleet {
        let signer = SignerId::parse("veid-signer-1").unwrap();
        let timeout = std::time::Duration::from_secs(3);
        let config = Config { url: Some(url.into()), command_timeout: timeout, ..Config::default() };
        RedisFleet::new(Arc::new(Pool::new(&config, &signer).unwrap()), &signer, "member")
    }

    #[tokio::test]
    async fn it_is_held_by_one_member_and_free_once_it_is_given_back() {
        let server = RedisServer::start(&[]);
        let (here, elsewhere) = (member(server.url()), member(server.url()));
        let guard = here.acquire(4).await.unwrap();
        assert!(matches!(elsewhere.acquire(4).await, Err(Error::Held)));
        let fence = guard.fence();
        drop(guard);
        here.given_back().await;
        let mut next = elsewhere.acquire(4).await.unwrap();
        assert!(next.fence() > fence);
        next.linger();
        drop(next);
        elsewhere.given_back().await;
        assert!(matches!(here.acquire(4).await, Err(Error::Held)));
    }

    #[tokio::test]
    async fn taken_without_a_reply_it_is_given_back() {
        let server = RedisServer::start(&[]);
        let network = Proxy::before(server.port, b"acquired").await;
        let (here, elsewhere) = (member(network.url()), member(server.url()));
        network.lose(2);
        assert!(matches!(here.acquire(4).await, Err(Error::Unavailable(_))));
        assert_eq!(network.left(), 0);
        here.given_back().await;
        elsewhere.acquire(4).await.unwrap();
    }
}
