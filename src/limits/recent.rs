//! What is remembered of callers, with a bound.

use std::hash::Hash;

use lru::LruCache;

/// A map that forgets what was not touched for longest. It grows only as it is filled.
#[derive(Debug)]
pub(super) struct Recent<K: Hash + Eq, V> {
    entries: LruCache<K, V>,
    most: usize,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    pub fn at_most(most: usize) -> Self {
        Self { entries: LruCache::unbounded(), most }
    }

    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    pub fn put(&mut self, key: K, value: V) {
        self.entries.put(key, value);
        if self.entries.len() > self.most {
            self.entries.pop_lru();
        }
    }

    pub fn remove(&mut self, key: &K) {
        drop(self.entries.pop(key));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }
}
