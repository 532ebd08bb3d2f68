//! The maintenance switch: an operator takes this appliance out of service for a while, and puts it
//! back. Meanwhile it issues no nonces and signs nothing for anybody; reading, verifying and the life
//! of keys go on. A request that was past the switch when it was turned is finished.
//!
//! **Commit point**: the file in the state directory. A restart, however it came, finds the appliance
//! as it was left.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    audit::{EventType, Severity},
    durable,
    service::{Error, Service, lifecycle::Actor},
    timestamp::Timestamp,
};

/// Why, since when and by whom the appliance is out of service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    pub since: Timestamp,
    pub reason: String,
    pub initiated_by: String,
    /// The authenticated identity.
    pub actor: String,
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of service for maintenance since {}: {}", self.since, self.reason)
    }
}

/// The switch, on disk.
pub struct Maintenance {
    path: PathBuf,
    pause: ArcSwapOption<Pause>,
    turning: Mutex<()>,
}

impl Maintenance {
    /// Reads it; no file is an appliance in service. One that cannot be read may say otherwise, and
    /// is a refusal.
    pub fn open(path: &Path) -> io::Result<Self> {
        let pause: Option<Pause> = match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), pause: ArcSwapOption::from_pointee(pause), turning: Mutex::default() })
    }

    /// Why the appliance is out of service, if it is.
    #[must_use]
    pub fn pause(&self) -> Option<Arc<Pause>> {
        self.pause.load_full()
    }

    /// Turns it; on disk first. Who is out of service already stays so since the same moment.
    fn turn(&self, pause: Option<Pause>) -> io::Result<Option<Arc<Pause>>> {
        let _turning = self.turning.lock();
        let since = self.pause().map(|pause| pause.since);
        let pause = pause.map(|pause| Pause { since: since.unwrap_or(pause.since), ..pause });
        let text = serde_json::to_vec_pretty(&pause).expect("a pause is plain text");
        durable::replace(&self.path, &text)?;
        self.pause.store(pause.map(Arc::new));
        Ok(self.pause())
    }
}

impl Service {
    /// Refuses what waits for the end of maintenance.
    pub(super) fn in_service(&self) -> Result<(), Error> {
        self.maintenance.pause().map_or(Ok(()), |pause| Err(Error::Maintenance(pause)))
    }

    /// Takes this appliance out of service, for a reason.
    pub async fn begin_maintenance(&self, reason: String, actor: &Actor) -> Result<Option<Arc<Pause>>, Error> {
        let (initiated_by, actor_name) = (actor.initiated_by.clone(), actor.name.clone());
        let pause = Pause { since: self.clock.now(), reason, initiated_by, actor: actor_name };
        self.turn_maintenance("begin_maintenance", Some(pause), actor).await
    }

    /// Puts it back.
    pub async fn end_maintenance(&self, actor: &Actor) -> Result<Option<Arc<Pause>>, Error> {
        self.turn_maintenance("end_maintenance", None, actor).await
    }

    async fn turn_maintenance(
        &self,
        action: &'static str,
        pause: Option<Pause>,
        actor: &Actor,
    ) -> Result<Option<Arc<Pause>>, Error> {
        let reason = pause.as_ref().map(|pause| pause.reason.clone());
        let event = actor
            .event(EventType::ConfigChanged, action, "maintenance", self.clock.now())
            .of_severity(Severity::Warning)
            .detail("reason", reason);
        let work = async {
            self.maintenance.turn(pause).map_err(|error| {
                tracing::error!(%error, path = %self.maintenance.path.display(), "maintenance cannot be switched");
                Error::StateUnwritable
            })
        };
        let pause = self.on_record(event.clone(), work, |_| event).await?;
        self.publish_maintenance();
        tracing::warn!(actor = actor.name, on = pause.is_some(), "maintenance was switched");
        Ok(pause)
    }

    /// Brings the gauge up to date.
    pub fn publish_maintenance(&self) {
        self.metrics.maintenance.set(i64::from(self.maintenance.pause().is_some()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(seconds: i64, reason: &str) -> Pause {
        let since = Timestamp::from_unix_seconds(seconds).unwrap();
        Pause { since, reason: reason.into(), initiated_by: "ops-team".into(), actor: "ops".into() }
    }

    #[test]
    fn it_is_as_it_was_left_and_what_is_not_on_disk_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("maintenance.json");
        let switch = Maintenance::open(&path).unwrap();
        assert_eq!(switch.pause(), None);
        switch.turn(Some(pause(1, "firmware"))).unwrap();
        switch.turn(Some(pause(2, "still firmware"))).unwrap();
        assert_eq!(Maintenance::open(&path).unwrap().pause().as_deref(), Some(&pause(1, "still firmware")));

        std::fs::remove_dir_all(directory.path()).unwrap();
        assert!(switch.turn(None).is_err());
        assert!(switch.pause().is_some(), "what was not written does not hold");
        std::fs::create_dir(directory.path()).unwrap();
        switch.turn(None).unwrap();
        assert_eq!(Maintenance::open(&path).unwrap().pause(), None);
        std::fs::write(&path, b"{").unwrap();
        assert!(Maintenance::open(&path).is_err(), "a file that cannot be read may say that it is on");
    }
}
