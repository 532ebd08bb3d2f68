//! One signature for many attestations: their canonical bytes are the leaves of a Merkle tree (RFC 9162
//! §2.1.1), the key signs its size and root, and each attestation carries its path to that root. It
//! verifies by itself. `softhsm-tests/vectors/MERKLE.md` is
//! the format for people.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    attestation::envelope::pae,
    merkle::{Hash, Tree, leaf_hash, root_of_inclusion},
};

/// Most attestations under one signature.
pub const MAX_TREE_SIZE: u32 = 65_536;

/// The longest path in such a tree.
const MAX_PATH: usize = MAX_TREE_SIZE.ilog2() as usize;

/// DSSE v1 payload type of a root.
pub const ROOT_PAYLOAD_TYPE: &str = "application/vnd.virtengine.veid.merkle-root";

/// What is signed for a whole tree: its size and its root.
#[must_use]
pub fn root_statement(tree_size: u32, root: &Hash) -> Vec<u8> {
    pae(ROOT_PAYLOAD_TYPE, format!("{tree_size}\n{}\n", STANDARD.encode(root)).as_bytes())
}

/// `proof.merkle`: where an attestation stands in the tree whose root was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an inclusion object")]
#[schema(as = MerkleInclusion)]
pub struct Inclusion {
    /// Leaves of the tree.
    #[schema(minimum = 1, maximum = 65_536)]
    tree_size: u32,
    /// The leaf of this attestation, counted from 0.
    #[schema(minimum = 0, maximum = 65_535)]
    leaf_index: u32,
    /// From the leaf up (RFC 9162 §2.1.3), standard base64 of 32 bytes each.
    #[schema(value_type = Vec<String>, max_items = 16)]
    path: Path,
}

impl Inclusion {
    /// What was signed if the leaf of these bytes stands where this says; `None` when no such tree has such a
    /// place, or the path is not as long as it must be there (RFC 9162 §2.1.3.2).
    #[must_use]
    pub fn root_statement(&self, canonical: &[u8]) -> Option<Vec<u8>> {
        if self.tree_size > MAX_TREE_SIZE {
            return None;
        }
        let (index, size) = (self.leaf_index.into(), self.tree_size.into());
        let root = root_of_inclusion(&leaf_hash(canonical), index, size, &self.path.0)?;
        Some(root_statement(self.tree_size, &root))
    }

    /// Leaves of the tree.
    #[must_use]
    pub fn tree_size(&self) -> u32 {
        self.tree_size
    }

    /// The leaf, counted from 0.
    #[must_use]
    pub fn leaf_index(&self) -> u32 {
        self.leaf_index
    }
}

/// The tree over some attestations.
pub struct AttestationTree {
    tree: Tree,
    size: u32,
}

impl AttestationTree {
    /// Over these canonical bytes; `None` when there are none, or more than [`MAX_TREE_SIZE`].
    #[must_use]
    pub fn new<'a>(canonical: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        Self::of_leaves(canonical.into_iter().map(leaf_hash))
    }

    /// The same over leaves that were hashed before.
    #[must_use]
    pub fn of_leaves(leaves: impl IntoIterator<Item = Hash>) -> Option<Self> {
        let tree: Tree = leaves.into_iter().collect();
        let size = u32::try_from(tree.size()).ok().filter(|size| (1..=MAX_TREE_SIZE).contains(size))?;
        Some(Self { tree, size })
    }

    /// What is to be signed.
    #[must_use]
    pub fn root_statement(&self) -> Vec<u8> {
        root_statement(self.size, &self.tree.root())
    }

    /// Where each attestation stands, in order.
    pub fn inclusions(&self) -> impl Iterator<Item = Inclusion> + '_ {
        (0..self.size).map(|leaf_index| Inclusion {
            tree_size: self.size,
            leaf_index,
            path: Path(self.tree.path(leaf_index.into())),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Path(Vec<Hash>);

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Base64))
    }
}

/// A hash in base64, without a text of its own: a batch has ten thousand of them.
struct Base64<'a>(&'a Hash);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; size_of::<Hash>().div_ceil(3) * 4];
        STANDARD.encode_slice(self.0, &mut text).expect("there is room for it");
        serializer.serialize_str(std::str::from_utf8(&text).expect("base64 is ASCII"))
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hashes;
        impl<'de> de::Visitor<'de> for Hashes {
            type Value = Path;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_PATH} hashes in base64")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Path, A::Error> {
                let mut path = Vec::new();
                while let Some(text) = access.next_element::<String>()? {
                    let hash = STANDARD.decode(&text).ok().and_then(|bytes| Hash::try_from(bytes).ok());
                    path.push(hash.ok_or_else(|| de::Error::custom("expected 32 bytes in standard base64"))?);
                    if path.len() > MAX_PATH {
                        return Err(de::Error::invalid_length(path.len(), &self));
                    }
                }
                Ok(Path(path))
            }
        }
        deserializer.deserialize_seq(Hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|number| format!("{{\"number\":{number}}}").into_bytes()).collect()
    }

    fn tree(count: usize) -> Option<AttestationTree> {
        AttestationTree::new(leaves(count).iter().map(Vec::as_slice))
    }

    #[test]
    fn each_leaf_leads_to_what_was_signed_and_no_other_leaf_or_place_does() {
        for size in [1, 2, 3, 5, 8, 13] {
            let tree = tree(size).unwrap();
            let (leaves, inclusions) = (leaves(size), tree.inclusions().collect::<Vec<_>>());
            for (at, leaf) in leaves.iter().enumerate() {
                for (place, inclusion) in inclusions.iter().enumerate() {
                    let leads = inclusion.root_statement(leaf) == Some(tree.root_statement());
                    assert_eq!(leads, at == place, "leaf {at} at {place} of {size}");
                }
            }
        }
    }

    #[test]
    fn the_size_of_the_tree_is_signed_too() {
        let tree = tree(3).unwrap();
        let first = tree.inclusions().next().unwrap();
        // The same path fits the first leaf of a tree of four.
        let four = Inclusion { tree_size: 4, ..first };
        let statement = four.root_statement(&leaves(3)[0]).unwrap();
        assert_ne!(statement, tree.root_statement());
    }

    #[test]
    fn a_place_that_cannot_be_and_a_path_of_another_length_are_refused() {
        let leaf = &leaves(5)[4];
        let good = tree(5).unwrap().inclusions().last().unwrap();
        assert!(good.root_statement(leaf).is_some());
        let longer = Path([good.path.0.clone(), vec![[0; 32]]].concat());
        for wrong in [
            Inclusion { tree_size: 0, ..good.clone() },
            Inclusion { leaf_index: 5, ..good.clone() },
            Inclusion { leaf_index: 3, ..good.clone() },
            Inclusion { tree_size: MAX_TREE_SIZE + 1, ..good.clone() },
            Inclusion { path: Path(Vec::new()), ..good.clone() },
            Inclusion { path: longer, ..good.clone() },
        ] {
            assert_eq!(wrong.root_statement(leaf), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_tree_has_leaves_and_not_too_many() {
        assert!(tree(0).is_none());
        assert!(tree(1).is_some());
        let most = usize::try_from(MAX_TREE_SIZE).unwrap();
        assert!(AttestationTree::new(std::iter::repeat_n(&b"{}"[..], most)).is_some());
        assert!(AttestationTree::new(std::iter::repeat_n(&b"{}"[..], most + 1)).is_none());
    }

    #[test]
    fn hashes_have_one_spelling() {
        let good = serde_json::to_string(&tree(2).unwrap().inclusions().next().unwrap()).unwrap();
        assert!(serde_json::from_str::<Inclusion>(&good).is_ok());
        let hash = good.split('"').nth(7).unwrap();
        assert_eq!(hash.len(), 44, "{good}");
        for other in [&hash[..43], &hash[..40], "", &format!("{hash}AAAA"), &hash.replace('=', "\\n=")] {
            assert!(serde_json::from_str::<Inclusion>(&good.replace(hash, other)).is_err(), "{other}");
        }
        let list = format!("[{}]", vec![format!("\"{hash}\""); MAX_PATH + 1].join(","));
        assert!(serde_json::from_str::<Inclusion>(&good.replace(&format!("[\"{hash}\"]"), &list)).is_err());
    }
}
