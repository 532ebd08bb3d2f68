//! The nodes of the tree on disk, in the order in which they were completed. Derived: made again from
//! the records when missing.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use crate::audit::merkle::{Frontier, Hash, Nodes, stored_count, stored_index};

/// The file of nodes.
pub struct NodeFile(File);

impl NodeFile {
    /// Opens or begins it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let options = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
        Ok(Self(options))
    }

    /// Whether there are nodes for so many records; what is more is cut off.
    pub fn fit(&self, size: u64) -> io::Result<bool> {
        let wanted = stored_count(size) * 32;
        let length = self.0.metadata()?.len();
        if length > wanted {
            self.0.set_len(wanted)?;
        }
        Ok(length >= wanted)
    }

    /// Begins anew after records that are not there any more: of their nodes, the peaks are known.
    pub fn begin_after(&mut self, frontier: &Frontier) -> io::Result<()> {
        self.0.set_len(0)?;
        let mut slots = vec![0; usize::try_from(stored_count(frontier.size()) * 32).map_err(io::Error::other)?];
        for ((level, number), peak) in peaks(frontier.size()).zip(frontier.peaks()) {
            let at = usize::try_from(stored_index(level, number) * 32).map_err(io::Error::other)?;
            slots[at..at + 32].copy_from_slice(peak);
        }
        self.0.write_all(&slots)
    }

    /// Adds nodes, 32 bytes each.
    pub fn append(&mut self, nodes: &[u8]) -> io::Result<()> {
        self.0.write_all(nodes)
    }

    /// The frontier of the first `size` records.
    pub fn frontier(&self, size: u64) -> io::Result<Option<Frontier>> {
        let peaks: io::Result<Vec<Hash>> = peaks(size).map(|(level, number)| self.node(level, number)).collect();
        Ok(Frontier::from_parts(size, peaks?))
    }
}

/// Level and number of the roots of a tree's complete subtrees, largest first.
fn peaks(size: u64) -> impl Iterator<Item = (u32, u64)> {
    (0..64).rev().filter(move |level| size >> level & 1 == 1).map(move |level| (level, (size >> level) - 1))
}

impl Nodes for NodeFile {
    type Error = io::Error;

    fn node(&self, level: u32, number: u64) -> io::Result<Hash> {
        let mut hash = [0; 32];
        self.0.read_exact_at(&mut hash, stored_index(level, number) * 32)?;
        Ok(hash)
    }
}
