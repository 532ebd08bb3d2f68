//! An appliance that is alone on its token: a mutex in this process, and nobody to tell.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Error, Fleet, Guard, Handed, Held, Member, Memory, Received, Returns};
use crate::key::seen::Seen;

/// Serialises lifecycle operations of this process.
#[derive(Default)]
pub struct Single {
    lock: Arc<Mutex<()>>,
    returns: Returns,
}

#[async_trait]
impl Held for OwnedMutexGuard<()> {
    async fn release(self: Box<Self>) {}
}

#[async_trait]
impl Fleet for Single {
    async fn acquire(&self, last_fence: u64) -> Result<Guard, Error> {
        let held = Arc::clone(&self.lock).try_lock_owned().map_err(|_| Error::Held)?;
        Ok(Guard::new(last_fence + 1, held, &self.returns))
    }

    async fn given_back(&self) {
        self.returns.done().await;
    }

    async fn report(&self, _seen: &Seen, _memory: Memory) -> Result<(), Error> {
        Ok(())
    }

    async fn remembered(&self) -> Result<Option<Seen>, Error> {
        Ok(None)
    }

    async fn exchange(&self, _handed: &Handed) -> Result<Received, Error> {
        Ok(Received::default())
    }

    async fn members(&self) -> Result<Vec<Member>, Error> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_held_by_one_and_its_fence_grows() {
        let lock = Single::default();
        let first = lock.acquire(4).await.unwrap();
        assert_eq!(first.fence(), 5);
        assert!(matches!(lock.acquire(5).await, Err(Error::Held)));
        first.release().await;
        assert_eq!(lock.acquire(5).await.unwrap().fence(), 6);
    }
}
