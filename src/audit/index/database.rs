//! The index of records, in SQLite: which texts a block of records holds, and where its records stand.
//! Rows of a block lie together, so that writing touches the end of the file only. Texts are kept as
//! hashes; whatever is found is compared with the record itself.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use roaring::RoaringBitmap;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    IndexError,
    places::{Place, Places},
};
use crate::{
    audit::filter::{Facts, Field, Filter},
    timestamp::Timestamp,
};

/// Another number when the tables change: the index is then made anew.
const VERSION: i64 = 4;

/// Records in a block. A search looks into each block of its time: fewer blocks make it faster, and
/// the rows of the open block, which are written again as it fills, longer. Tests have many borders.
pub const BLOCK: u64 = if cfg!(test) { 16 } else { 16_384 };

/// Longest time that one search may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the index keeps of a record.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub place: Place,
    time: i64,
    held: [Option<i64>; Field::ALL.len()],
}

impl Entry {
    /// Of the record at this place.
    pub fn of(place: Place, facts: &Facts<'_>) -> Self {
        let held = Field::ALL.map(|field| field.of(facts).map(hash));
        Self { place, time: facts.timestamp.unix_milliseconds(), held }
    }
}

/// One page of a search.
#[derive(Clone, Debug)]
pub struct Query {
    pub filter: Filter,
    pub limit: usize,
    pub newest_first: bool,
    /// Go on after this record, in the order of the search.
    pub cursor: Option<u64>,
}

fn tables() -> String {
    format!(
        "CREATE TABLE blocks(block INTEGER PRIMARY KEY, first INTEGER, last INTEGER, newest INTEGER);
         CREATE TABLE places(block INTEGER PRIMARY KEY, places BLOB);
         CREATE TABLE holdings(block INTEGER, field INTEGER, text INTEGER, records BLOB, PRIMARY KEY(block, field, text)) WITHOUT ROWID;
         PRAGMA user_version = {VERSION};"
    )
}

/// Opens the database for searching.
pub fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA query_only = 1; PRAGMA cache_size = -8000;")?;
    Ok(connection)
}

/// A text that records hold, by its field and its hash.
type Held = (Field, i64);

/// The side that writes.
pub struct Writer {
    connection: Connection,
    open: OpenBlock,
}

/// The block that is being filled: which of its records hold what.
#[derive(Default)]
struct OpenBlock {
    block: u64,
    holdings: HashMap<Held, RoaringBitmap>,
    changed: HashSet<Held>,
}

impl OpenBlock {
    fn load(connection: &Connection, block: u64) -> rusqlite::Result<Self> {
        let sql = "SELECT field, text, records FROM holdings WHERE block = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map([signed(block)], |row| {
            let field: u8 = row.get(0)?;
            let field = *Field::ALL.get(usize::from(field)).ok_or(rusqlite::Error::InvalidQuery)?;
            Ok(((field, row.get(1)?), bitmap(row, 2)?))
        })?;
        Ok(Self { block, holdings: rows.collect::<Result<_, _>>()?, changed: HashSet::new() })
    }

    fn add(&mut self, entry: &Entry) {
        let place = within_block(entry.place.sequence);
        for (field, text) in Field::ALL.into_iter().zip(entry.held) {
            let Some(text) = text else { continue };
            self.holdings.entry((field, text)).or_default().insert(place);
            self.changed.insert((field, text));
        }
    }

    fn save(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO holdings VALUES(?1, ?2, ?3, ?4)")?;
        // In the order in which they lie.
        let mut changed: Vec<_> = self.changed.drain().collect();
        changed.sort_unstable_by_key(|(field, text)| (*field as u8, *text));
        let mut bytes = Vec::new();
        for held in changed {
            bytes.clear();
            self.holdings[&held].serialize_into(&mut bytes).expect("memory takes what is written");
            insert.execute(params![signed(self.block), held.0 as u8, held.1, bytes])?;
        }
        Ok(())
    }
}

/// Every record of a block.
fn everything() -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    all.insert_range(..u32::try_from(BLOCK).expect("a block is small"));
    all
}

/// Which place of its block a record has.
fn within_block(sequence: u64) -> u32 {
    u32::try_from(sequence % BLOCK).expect("a block is small")
}

fn bitmap(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<RoaringBitmap> {
    let bytes = row.get_ref(column)?.as_blob()?;
    RoaringBitmap::deserialize_from(bytes).map_err(|_| rusqlite::Error::InvalidQuery)
}

impl Writer {
    /// Opens the database; `None` when it is not one of this version, or damaged.
    pub fn open(path: &Path) -> rusqlite::Result<Option<Self>> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16000; PRAGMA wal_autocheckpoint = 4000;",
        )?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            VERSION => {}
            0 => connection.execute_batch(&tables())?,
            _ => return Ok(None),
        }
        Ok(Some(Self { connection, open: OpenBlock::default() }))
    }

    /// The last record in the index, where its segment begins, and where it ends there.
    pub fn last(&self) -> rusqlite::Result<Option<Place>> {
        let sql = "SELECT newest FROM blocks ORDER BY block DESC LIMIT 1";
        let Some(newest) = self.connection.query_row(sql, [], |row| unsigned(row, 0)).optional()? else {
            return Ok(None);
        };
        Ok(Places::of(&self.connection, newest / BLOCK)?.at(newest)?.map(|(place, _)| place))
    }

    /// Forgets records that are not there any more.
    pub fn forget(&self, until: u64) -> rusqlite::Result<()> {
        for table in ["blocks", "holdings", "places"] {
            self.connection.execute(&format!("DELETE FROM {table} WHERE block < ?1"), [signed(until / BLOCK)])?;
        }
        Ok(())
    }

    /// Adds records in one transaction. After a failure this writer is of no use any more.
    pub fn add(&mut self, entries: &[Entry]) -> rusqlite::Result<()> {
        let block_of = |entry: &Entry| entry.place.sequence / BLOCK;
        let transaction = self.connection.transaction()?;
        for entries in entries.chunk_by(|a, b| block_of(a) == block_of(b)) {
            let Some(block) = entries.first().map(block_of) else { continue };
            if self.open.block != block || self.open.holdings.is_empty() {
                self.open = OpenBlock::load(&transaction, block)?;
            }
            add_places(&transaction, block, entries)?;
            for entry in entries {
                self.open.add(entry);
            }
            self.open.save(&transaction)?;
        }
        transaction.commit()
    }
}

/// Adds records of one block, which follow each other.
fn add_places(connection: &Connection, block: u64, entries: &[Entry]) -> rusqlite::Result<()> {
    let Some(newest) = entries.last() else { return Ok(()) };
    let times = || entries.iter().map(|entry| entry.time);
    let mut widen = connection.prepare_cached(
        "INSERT INTO blocks VALUES(?1, ?2, ?3, ?4) ON CONFLICT(block) DO UPDATE SET first = min(first, ?2), last = max(last, ?3), newest = ?4",
    )?;
    widen.execute(params![signed(block), times().min(), times().max(), signed(newest.place.sequence)])?;
    Places::to_write(connection, block)?.write(entries.iter().map(|entry| (entry.place, entry.time)))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0))
}

/// A number for a text. Whoever makes two texts share one makes only his own searches slower.
fn hash(text: &str) -> i64 {
    xxh3_64(text.as_bytes()).cast_signed()
}

/// Places of records that may fit, in order.
pub fn search(connection: &Connection, query: &Query, retired: u64) -> Result<Vec<Place>, IndexError> {
    // One view of all tables, also while records are forgotten.
    let view = connection.unchecked_transaction()?;
    Search::new(&view, query, retired)?.run()
}

/// One search under way.
struct Search<'a> {
    connection: &'a Connection,
    query: &'a Query,
    /// Times that are wanted.
    since: i64,
    until: i64,
    /// Sequences that are wanted.
    first: u64,
    last: u64,
    wanted: Vec<Held>,
    holding: CachedStatement<'a>,
    found: Vec<Place>,
}

impl<'a> Search<'a> {
    fn new(connection: &'a Connection, query: &'a Query, retired: u64) -> rusqlite::Result<Self> {
        let (after, before) = match query.cursor {
            Some(cursor) if query.newest_first => (0, cursor),
            Some(cursor) => (cursor, u64::MAX),
            None => (0, u64::MAX),
        };
        Ok(Self {
            connection,
            query,
            since: query.filter.since.map_or(i64::MIN, Timestamp::unix_milliseconds),
            until: query.filter.until.map_or(i64::MAX, Timestamp::unix_milliseconds),
            first: retired.max(after).saturating_add(1),
            last: before.saturating_sub(1),
            wanted: query.filter.texts().into_iter().map(|(field, text)| (field, hash(text))).collect(),
            holding: connection
                .prepare_cached("SELECT records FROM holdings WHERE block = ?1 AND field = ?2 AND text = ?3")?,
            found: Vec::new(),
        })
    }

    fn run(mut self) -> Result<Vec<Place>, IndexError> {
        let (begun, order) = (Instant::now(), if self.query.newest_first { "DESC" } else { "ASC" });
        let mut blocks = self.connection.prepare_cached(&format!(
            "SELECT block, first, last FROM blocks WHERE block BETWEEN ?1 AND ?2 AND last >= ?3 AND first <= ?4 ORDER BY block {order}"
        ))?;
        let window = [signed(self.first / BLOCK), signed(self.last / BLOCK), self.since, self.until];
        let mut rows = blocks.query(window)?;
        while let Some(row) = rows.next()? {
            let within = row.get::<_, i64>(1)? >= self.since && row.get::<_, i64>(2)? <= self.until;
            self.look_into(unsigned(row, 0)?, within)?;
            if self.found.len() >= self.query.limit {
                self.found.truncate(self.query.limit);
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err(IndexError::TooBroad);
            }
        }
        Ok(self.found)
    }

    /// Adds the records of a block that hold all that is wanted. `within`: all of its times are wanted.
    fn look_into(&mut self, block: u64, within: bool) -> rusqlite::Result<()> {
        let Some(mut places) = self.holders(block)? else { return Ok(()) };
        if !within {
            places &= self.of_the_time(block)?;
        }
        let bound = |sequence: u64| u32::try_from(sequence.saturating_sub(block * BLOCK).min(BLOCK)).expect("small");
        places.remove_range(..bound(self.first));
        places.remove_range(bound(self.last.saturating_add(1))..);
        let sequences = places.into_iter().map(|place| block * BLOCK + u64::from(place));
        let sequences: Vec<_> = if self.query.newest_first { sequences.rev().collect() } else { sequences.collect() };
        if sequences.is_empty() {
            return Ok(());
        }
        let places = Places::of(self.connection, block)?;
        for sequence in sequences {
            if self.found.len() >= self.query.limit {
                break;
            }
            self.found.extend(places.at(sequence)?.map(|(place, _)| place));
        }
        Ok(())
    }

    /// Which records of a block hold all that is wanted.
    fn holders(&mut self, block: u64) -> rusqlite::Result<Option<RoaringBitmap>> {
        let mut all: Option<RoaringBitmap> = None;
        for (field, text) in &self.wanted {
            let held = params![signed(block), *field as u8, text];
            let Some(holders) = self.holding.query_row(held, |row| bitmap(row, 0)).optional()? else { return Ok(None) };
            all = Some(match all {
                None => holders,
                Some(before) => before & holders,
            });
        }
        Ok(Some(all.unwrap_or_else(everything)))
    }

    /// Which records of a block are of the time that is wanted.
    fn of_the_time(&self, block: u64) -> rusqlite::Result<RoaringBitmap> {
        let wanted = self.since..=self.until;
        let places = Places::of(self.connection, block)?.all()?;
        let wanted = places.into_iter().filter(|(_, time)| wanted.contains(time));
        Ok(wanted.map(|(place, _)| within_block(place.sequence)).collect())
    }
}
