//! Merkle trees (RFC 6962 §2.1, RFC 9162 §2.1.3 and §2.1.4): over the records of the audit trail, where
//! a leaf is a line without its newline, and over attestations that share a signature, where it is
//! their canonical bytes.
//!
//! The trail's writer keeps only the [`Frontier`], some twenty hashes; proofs read the other nodes from
//! wherever they are kept ([`Nodes`]).

use std::convert::Infallible;

use sha2::{Digest, Sha256};

/// SHA-256 of a leaf or a node.
pub type Hash = [u8; 32];

/// RFC 6962 §2.1: `SHA-256(0x00 || entry)`.
#[must_use]
pub fn leaf_hash(record: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(record).finalize().into()
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The roots of the complete subtrees of a growing tree, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// A frontier that was kept elsewhere; `None` when there are not as many peaks as the size has
    /// bits set. Whether they are the right ones, only a comparison of the root can tell.
    #[must_use]
    pub fn from_parts(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// How many records there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees.
    #[must_use]
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf.
    pub fn append(&mut self, leaf: Hash) {
        self.append_with(leaf, |_| {});
    }

    /// Adds a leaf; `complete` is told it, and every node that it completes, from the bottom up.
    pub fn append_with(&mut self, leaf: Hash, mut complete: impl FnMut(&Hash)) {
        let mut node = leaf;
        complete(&node);
        // As many subtrees are completed as the size has ones at its end.
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("a peak for every bit that is set");
            node = node_hash(&left, &node);
            complete(&node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root of the whole tree. That of no records is the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => Sha256::digest([]).into(),
            Some(last) => peaks.fold(*last, |root, peak| node_hash(peak, &root)),
        }
    }

    /// The root of each peak together with all that are right of it.
    fn edge(&self) -> Vec<Hash> {
        let mut edge = self.peaks.clone();
        for at in (1..edge.len()).rev() {
            edge[at - 1] = node_hash(&edge[at - 1], &edge[at]);
        }
        edge
    }
}

/// Where the nodes of complete subtrees are: `node(0, n)` is leaf n, `node(l, n)` the root of the
/// 2^l leaves from n·2^l on.
pub trait Nodes {
    type Error;
    fn node(&self, level: u32, number: u64) -> Result<Hash, Self::Error>;

    /// The root of the leaves from `begin` to `end`, where `begin` is aligned as in RFC 6962.
    fn range(&self, begin: u64, end: u64) -> Result<Hash, Self::Error> {
        range_root(self, begin, end)
    }
}

fn range_root<N: Nodes + ?Sized>(nodes: &N, begin: u64, end: u64) -> Result<Hash, N::Error> {
    let count = end - begin;
    if count.is_power_of_two() {
        let level = count.trailing_zeros();
        return nodes.node(level, begin >> level);
    }
    let middle = begin + split(count);
    Ok(node_hash(&nodes.range(begin, middle)?, &nodes.range(middle, end)?))
}

/// Where a node stands when leaves and nodes are stored as they are completed.
#[must_use]
pub fn stored_index(level: u32, number: u64) -> u64 {
    // The last leaf below the node, which completes it …
    let leaf = ((number + 1) << level) - 1;
    // … comes after all leaves before it and the nodes that they completed.
    stored_count(leaf) + u64::from(level)
}

/// How many leaves and nodes a tree of this size has stored.
#[must_use]
pub fn stored_count(size: u64) -> u64 {
    2 * size - u64::from(size.count_ones())
}

/// A whole tree in memory: its root, and the path of each leaf.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    frontier: Frontier,
    stored: Vec<Hash>,
    /// The root of each peak together with all that are right of it, the largest first: what most paths lead past.
    edge: Vec<Hash>,
}

impl FromIterator<Hash> for Tree {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut tree = Self::default();
        for leaf in leaves {
            tree.frontier.append_with(leaf, |node| tree.stored.push(*node));
        }
        tree.edge = tree.frontier.edge();
        tree
    }
}

impl Tree {
    /// How many leaves there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// The path from leaf `index`, which must be one of them, to the root.
    #[must_use]
    pub fn path(&self, index: u64) -> Vec<Hash> {
        let Ok(path) = inclusion_proof(self, index, self.size());
        path
    }
}

impl Nodes for Tree {
    type Error = Infallible;
    fn node(&self, level: u32, number: u64) -> Result<Hash, Infallible> {
        Ok(self.stored[usize::try_from(stored_index(level, number)).expect("an index into memory")])
    }

    /// What ends with the tree begins with one of its peaks, and those before it are the larger bits of its size.
    fn range(&self, begin: u64, end: u64) -> Result<Hash, Infallible> {
        if end == self.size() && begin < end && !(end - begin).is_power_of_two() {
            return Ok(self.edge[begin.count_ones() as usize]);
        }
        range_root(self, begin, end)
    }
}

/// The largest power of two below `count`.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// The root of the first `size` leaves.
pub fn root_at<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 { Ok(Frontier::default().root()) } else { nodes.range(0, size) }
}

/// RFC 6962 §2.1.1: the path from leaf `index` to the root of the first `size` leaves.
pub fn inclusion_proof<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let (mut begin, mut end, mut path) = (0, size, Vec::new());
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            path.push(nodes.range(middle, end)?);
            end = middle;
        } else {
            path.push(nodes.range(begin, middle)?);
            begin = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// RFC 6962 §2.1.2: that the first `from` leaves of the tree of size `to` are those of the smaller tree.
pub fn consistency_proof<N: Nodes>(nodes: &N, from: u64, to: u64) -> Result<Vec<Hash>, N::Error> {
    if from == 0 || from == to {
        return Ok(Vec::new());
    }
    let (mut begin, mut end, mut path) = (0, to, Vec::new());
    while from != end {
        let middle = begin + split(end - begin);
        if from <= middle {
            path.push(nodes.range(middle, end)?);
            end = middle;
        } else {
            path.push(nodes.range(begin, middle)?);
            begin = middle;
        }
    }
    // The verifier knows the root of the smaller tree when it is one complete subtree.
    if begin != 0 {
        path.push(nodes.range(begin, end)?);
    }
    path.reverse();
    Ok(path)
}

/// RFC 9162 §2.1.3.2.
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    root_of_inclusion(leaf, index, size, proof).as_ref() == Some(root)
}

/// The root that RFC 9162 §2.1.3.2 comes to; `None` when there is no such leaf in a tree of this size, or
/// its path has another length.
#[must_use]
pub fn root_of_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut found) = (index, size - 1, *leaf);
    for hash in proof {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            found = node_hash(hash, &found);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            found = node_hash(&found, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(found)
}

/// RFC 9162 §2.1.4.2.
#[must_use]
pub fn verify_consistency(from: (u64, &Hash), to: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((first, first_root), (second, second_root)) = (from, to);
    if first == 0 || first == second {
        return proof.is_empty() && (first == 0 || first_root == second_root);
    }
    if first > second {
        return false;
    }
    let (mut at, mut last) = (first - 1, second - 1);
    let shift = at.trailing_ones();
    at >>= shift;
    last >>= shift;
    let own = [*first_root];
    let mut path = if first.is_power_of_two() { own[..].iter().chain(proof) } else { proof.iter().chain(&[]) };
    let Some(begin) = path.next() else { return false };
    let (mut old, mut new) = (*begin, *begin);
    for hash in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old = node_hash(hash, &old);
            new = node_hash(hash, &new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old == *first_root && new == *second_root
}

#[cfg(test)]
mod tests {
    use ct_merkle::{RootHash, mem_backed_tree::MemoryBackedTree};
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn record(number: u64) -> Vec<u8> {
        format!("record {number}").into_bytes()
    }

    /// The same tree three times: ours growing, ours stored, and ct-merkle's.
    fn trees(size: u64) -> (Frontier, Tree, MemoryBackedTree<Sha256, Vec<u8>>) {
        let mut oracle = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        (0..size).for_each(|number| oracle.push(record(number)));
        let tree: Tree = (0..size).map(|number| leaf_hash(&record(number))).collect();
        (tree.frontier.clone(), tree, oracle)
    }

    fn bytes(hashes: &[Hash]) -> Vec<u8> {
        hashes.concat()
    }

    #[test]
    fn roots_and_proofs_are_those_of_another_implementation() {
        for size in 1..70 {
            let (frontier, stored, oracle) = trees(size);
            let root: RootHash<Sha256> = oracle.root();
            assert_eq!(frontier.root()[..], root.as_bytes()[..]);
            assert_eq!(root_at(&stored, size), Ok(frontier.root()));
            assert_eq!(stored.stored.len() as u64, stored_count(size));
            for index in 0..size {
                let proof = inclusion_proof(&stored, index, size).unwrap();
                assert_eq!(proof, stored.path(index));
                assert_eq!(bytes(&proof), oracle.prove_inclusion(usize::try_from(index).unwrap()).as_bytes());
            }
            for from in 1..size {
                let proof = consistency_proof(&stored, from, size).unwrap();
                let theirs = oracle.prove_consistency(usize::try_from(size - from).unwrap());
                assert_eq!(bytes(&proof), theirs.as_bytes(), "{from} of {size}");
                let old = root_at(&stored, from).unwrap();
                assert!(verify_consistency((from, &old), (size, &frontier.root()), &proof));
            }
        }
    }

    #[test]
    fn the_tree_of_no_records_has_the_hash_of_nothing() {
        assert_eq!(Frontier::default().root()[..], Sha256::digest([])[..]);
    }

    #[test]
    fn a_frontier_goes_on_where_it_was_left() {
        let (whole, ..) = trees(57);
        let (part, ..) = trees(30);
        let mut part = Frontier::from_parts(part.size(), part.peaks().to_vec()).unwrap();
        for number in 30..57 {
            part.append(leaf_hash(&record(number)));
        }
        assert_eq!(part, whole);
        assert_eq!(Frontier::from_parts(30, vec![[0; 32]; 3]), None);
    }

    proptest! {
        #[test]
        fn a_proof_of_inclusion_holds_for_one_record_one_place_and_one_root(
            size in 1u64..200, index in 0u64..200, wrong in 0u64..200, bit in 0usize..256,
        ) {
            let (frontier, stored, _) = trees(size);
            let (index, wrong) = (index % size, wrong % size);
            let (leaf, root) = (leaf_hash(&record(index)), frontier.root());
            let mut proof = inclusion_proof(&stored, index, size).unwrap();
            prop_assert!(verify_inclusion(&leaf, index, size, &proof, &root));
            prop_assert_eq!(verify_inclusion(&leaf, wrong, size, &proof, &root), wrong == index);
            prop_assert!(!verify_inclusion(&leaf_hash(b"another"), index, size, &proof, &root));
            if let Some(hash) = proof.first_mut() {
                hash[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(!verify_inclusion(&leaf, index, size, &proof, &root));
                proof.pop();
            }
            if size > 1 {
                prop_assert!(!verify_inclusion(&leaf, index, size, &proof, &root));
            }
        }

        #[test]
        fn a_proof_of_consistency_holds_for_nothing_else(from in 1u64..200, more in 1u64..100, bit in 0usize..256) {
            let to = from + more;
            let (frontier, stored, _) = trees(to);
            let (old, new) = (root_at(&stored, from).unwrap(), frontier.root());
            let mut proof = consistency_proof(&stored, from, to).unwrap();
            prop_assert!(verify_consistency((from, &old), (to, &new), &proof));
            let mut other = old;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify_consistency((from, &other), (to, &new), &proof));
            prop_assert!(!verify_consistency((from, &old), (to, &other), &proof));
            prop_assert!(!verify_consistency((to, &new), (from, &old), &proof));
            proof[0][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify_consistency((from, &old), (to, &new), &proof));
        }
    }
}
