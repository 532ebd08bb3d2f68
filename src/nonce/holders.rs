//! Who holds how many unspent nonces, in order: so that the largest are found without a walk.

use std::collections::{BTreeSet, HashMap};

use crate::client::ClientIdentity;

/// Counts by issuer. An issuer that holds none is forgotten.
#[derive(Default)]
pub(super) struct Holders {
    counts: HashMap<ClientIdentity, u64>,
    by_count: BTreeSet<(u64, ClientIdentity)>,
    total: u64,
}

impl Holders {
    /// What this issuer holds.
    pub fn held(&self, issuer: &ClientIdentity) -> u64 {
        self.counts.get(issuer).copied().unwrap_or(0)
    }

    /// What all hold.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many issuers hold any.
    pub fn issuers(&self) -> u64 {
        self.counts.len() as u64
    }

    pub fn add(&mut self, issuer: &ClientIdentity, count: u64) {
        self.total += count;
        self.set(issuer, self.held(issuer) + count);
    }

    pub fn remove_one(&mut self, issuer: &ClientIdentity) {
        self.total -= 1;
        self.set(issuer, self.held(issuer) - 1);
    }

    /// Those that hold most, the most first, with their names in order among equals.
    pub fn largest(&self, most: usize) -> Vec<(String, u64)> {
        let mut largest: Vec<_> =
            self.by_count.iter().rev().take(most).map(|(count, issuer)| (issuer.to_string(), *count)).collect();
        super::stats::in_order(&mut largest);
        largest
    }

    fn set(&mut self, issuer: &ClientIdentity, count: u64) {
        let before = self.counts.remove(issuer).unwrap_or(0);
        self.by_count.remove(&(before, issuer.clone()));
        if count > 0 {
            self.counts.insert(issuer.clone(), count);
            self.by_count.insert((count, issuer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_who_holds_none_is_forgotten() {
        let mut holders = Holders::default();
        let [alice, bob, carol]: [ClientIdentity; 3] = ["alice".into(), "bob".into(), "carol".into()];
        holders.add(&alice, 2);
        holders.add(&carol, 5);
        holders.add(&bob, 5);
        assert_eq!(holders.largest(9), [("bob".into(), 5), ("carol".into(), 5), ("alice".into(), 2)]);
        assert_eq!(holders.largest(1).len(), 1);
        holders.remove_one(&alice);
        holders.remove_one(&alice);
        assert_eq!((holders.held(&alice), holders.issuers(), holders.total()), (0, 2, 10));
    }
}
