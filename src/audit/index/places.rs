//! Where the records of a block stand: one large value of the database, in which each record has its
//! place. Writing and reading one touch only the pages that it lies on.

use rusqlite::{Connection, MAIN_DB, blob::Blob};

use super::database::BLOCK;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub sequence: u64,
    /// Records before its segment.
    pub begins_after: u64,
    pub offset: u64,
    pub length: u64,
}

/// Four numbers: what `begins_after`, `offset` and `length` say, and the time in milliseconds.
const SIZE: usize = 32;

/// The places of a block.
pub struct Places<'a> {
    block: u64,
    value: Blob<'a>,
}

impl<'a> Places<'a> {
    /// Those of this block, to be read.
    pub fn of(connection: &'a Connection, block: u64) -> rusqlite::Result<Self> {
        Self::open(connection, block, true)
    }

    /// Those of this block, to be written; before its first record they are made.
    pub fn to_write(connection: &'a Connection, block: u64) -> rusqlite::Result<Self> {
        let mut make = connection.prepare_cached("INSERT OR IGNORE INTO places VALUES(?1, zeroblob(?2))")?;
        make.execute([number(block), number(BLOCK * SIZE as u64)])?;
        Self::open(connection, block, false)
    }

    fn open(connection: &'a Connection, block: u64, read_only: bool) -> rusqlite::Result<Self> {
        let value = connection.blob_open(MAIN_DB, c"places", c"places", number(block), read_only)?;
        Ok(Self { block, value })
    }

    /// Adds records that follow each other, with their times.
    pub fn write(&mut self, records: impl Iterator<Item = (Place, i64)> + Clone) -> rusqlite::Result<()> {
        let Some((first, _)) = records.clone().next() else { return Ok(()) };
        let bytes: Vec<u8> = records.flat_map(|(place, time)| encode(&place, time)).collect();
        self.value.write_all_at(&bytes, start(first.sequence))
    }

    /// The record with this sequence, and its time, if it is there.
    pub fn at(&self, sequence: u64) -> rusqlite::Result<Option<(Place, i64)>> {
        let mut bytes = [0; SIZE];
        self.value.read_at_exact(&mut bytes, start(sequence))?;
        Ok(decode(sequence, &bytes))
    }

    /// All that are there.
    pub fn all(&self) -> rusqlite::Result<Vec<(Place, i64)>> {
        let mut bytes = vec![0; self.value.len()];
        self.value.read_at_exact(&mut bytes, 0)?;
        let (records, _) = bytes.as_chunks();
        Ok((self.block * BLOCK..).zip(records).filter_map(|(sequence, bytes)| decode(sequence, bytes)).collect())
    }
}

fn number(number: u64) -> i64 {
    number.cast_signed()
}

fn start(sequence: u64) -> usize {
    usize::try_from(sequence % BLOCK).expect("a block is small") * SIZE
}

fn encode(place: &Place, time: i64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let numbers = [place.begins_after, place.offset, place.length, time.cast_unsigned()];
    for (part, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// `None` where no record has been written: none is empty.
fn decode(sequence: u64, bytes: &[u8; SIZE]) -> Option<(Place, i64)> {
    let (numbers, _) = bytes.as_chunks();
    let [begins_after, offset, length, time] = [0, 1, 2, 3].map(|index: usize| u64::from_le_bytes(numbers[index]));
    (length > 0).then_some((Place { sequence, begins_after, offset, length }, time.cast_signed()))
}
