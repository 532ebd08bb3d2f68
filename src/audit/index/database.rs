//! The index of records, in SQLite: where each record stands, and what filters ask for. Texts that
//! repeat little are kept as hashes; whatever is found is compared with the record itself.

use std::{collections::HashMap, path::Path, time::Instant};

use rusqlite::{Connection, OptionalExtension, params, params_from_iter, types::Value};
use sha2::{Digest, Sha256};

use crate::{
    audit::filter::{Facts, Field, Filter},
    timestamp::Timestamp,
};

/// Another number when the tables change: the index is then made anew.
const VERSION: i64 = 1;

/// Records in a block, of which first and last time are kept.
const BLOCK: u64 = 4096;

/// Longest time that one search may take.
const PATIENCE_MS: u128 = 3000;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub sequence: u64,
    /// Records before its segment.
    pub begins_after: u64,
    pub offset: u64,
    pub length: u64,
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
    let columns = Field::ALL.map(|field| format!("{} INTEGER", field.column())).join(", ");
    let indices = Field::ALL.map(|field| format!("CREATE INDEX by_{0} ON records({0});", field.column())).join("\n");
    format!(
        "CREATE TABLE records(sequence INTEGER PRIMARY KEY, begins_after INTEGER, offset INTEGER, length INTEGER, time INTEGER, {columns});
         {indices}
         CREATE TABLE blocks(block INTEGER PRIMARY KEY, first INTEGER, last INTEGER);
         PRAGMA user_version = {VERSION};"
    )
}

/// Opens the database for searching.
pub fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA query_only = 1; PRAGMA cache_size = -8000;")?;
    Ok(connection)
}

/// The side that writes.
pub struct Writer(Connection);

impl Writer {
    /// Opens the database; `None` when it is not one of this version, or damaged.
    pub fn open(path: &Path) -> rusqlite::Result<Option<Self>> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -64000; PRAGMA wal_autocheckpoint = 4000;",
        )?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            VERSION => Ok(Some(Self(connection))),
            0 => {
                connection.execute_batch(&tables())?;
                Ok(Some(Self(connection)))
            }
            _ => Ok(None),
        }
    }

    /// The last record in the index, where its segment begins, and where it ends there.
    pub fn last(&self) -> rusqlite::Result<Option<Place>> {
        let sql = "SELECT sequence, begins_after, offset, length FROM records ORDER BY sequence DESC LIMIT 1";
        self.0.query_row(sql, [], place).optional()
    }

    /// Forgets records that are not there any more.
    pub fn forget(&self, until: u64) -> rusqlite::Result<()> {
        self.0.execute("DELETE FROM records WHERE sequence <= ?1", [signed(until)])?;
        self.0.execute("DELETE FROM blocks WHERE block < ?1", [signed(until / BLOCK)])?;
        Ok(())
    }

    /// Adds records in one transaction.
    pub fn add(&mut self, records: &[(Place, Facts)]) -> rusqlite::Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction
                .prepare("INSERT OR REPLACE INTO records VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)")?;
            let mut blocks: HashMap<u64, (i64, i64)> = HashMap::new();
            for (place, facts) in records {
                let time = facts.timestamp.unix_milliseconds();
                let block = blocks.entry(place.sequence / BLOCK).or_insert((time, time));
                *block = (block.0.min(time), block.1.max(time));
                let hash = |field: Field| field.of(facts).map(|text| hash(field, text));
                insert.execute(params![
                    signed(place.sequence),
                    signed(place.begins_after),
                    signed(place.offset),
                    signed(place.length),
                    time,
                    hash(Field::Type),
                    hash(Field::Actor),
                    hash(Field::Resource),
                    hash(Field::Key),
                    hash(Field::Ip),
                    hash(Field::Outcome),
                    hash(Field::Severity),
                ])?;
            }
            let mut widen = transaction.prepare(
                "INSERT INTO blocks VALUES(?1, ?2, ?3) ON CONFLICT(block) DO UPDATE SET first = min(first, ?2), last = max(last, ?3)",
            )?;
            for (block, (first, last)) in blocks {
                widen.execute(params![signed(block), first, last])?;
            }
        }
        transaction.commit()
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0))
}

fn place(row: &rusqlite::Row<'_>) -> rusqlite::Result<Place> {
    Ok(Place {
        sequence: unsigned(row, 0)?,
        begins_after: unsigned(row, 1)?,
        offset: unsigned(row, 2)?,
        length: unsigned(row, 3)?,
    })
}

/// A number for a text. Words of which there are few get a short one, which takes little room.
fn hash(field: Field, text: &str) -> i64 {
    let digest = Sha256::digest(text);
    let bytes: [u8; 8] = digest[..8].try_into().expect("eight of 32 bytes");
    let number = i64::from_be_bytes(bytes);
    match field {
        Field::Type | Field::Outcome | Field::Severity => number & 0x7fff,
        Field::Actor | Field::Resource | Field::Key | Field::Ip => number,
    }
}

/// Places of records that may fit, in order.
pub fn search(connection: &mut Connection, query: &Query, retired: u64) -> rusqlite::Result<Vec<Place>> {
    let begun = Instant::now();
    connection.progress_handler(10_000, Some(move || begun.elapsed().as_millis() > PATIENCE_MS))?;
    let Some((mut first, mut last)) = window(connection, &query.filter)? else { return Ok(Vec::new()) };
    first = first.max(signed(retired) + 1);
    match query.cursor {
        Some(cursor) if query.newest_first => last = last.min(signed(cursor) - 1),
        Some(cursor) => first = first.max(signed(cursor) + 1),
        None => {}
    }
    let conditions: Vec<_> = query.filter.texts().into_iter().map(|(field, text)| (field, hash(field, text))).collect();
    let by = rarest(connection, &conditions, first, last)?;
    let index = by.map_or_else(|| "NOT INDEXED".into(), |field| format!("INDEXED BY by_{}", field.column()));
    let mut wanted = vec!["sequence BETWEEN ? AND ?".to_owned()];
    let mut values = vec![Value::from(first), Value::from(last)];
    for (field, number) in conditions {
        wanted.push(format!("{} = ?", field.column()));
        values.push(number.into());
    }
    let bounds = [(">=", query.filter.since), ("<=", query.filter.until)];
    for (comparison, time) in bounds.into_iter().filter_map(|(comparison, time)| Some((comparison, time?))) {
        wanted.push(format!("time {comparison} ?"));
        values.push(time.unix_milliseconds().into());
    }
    let sql = format!(
        "SELECT sequence, begins_after, offset, length FROM records {index} WHERE {} ORDER BY sequence {} LIMIT {}",
        wanted.join(" AND "),
        if query.newest_first { "DESC" } else { "ASC" },
        query.limit
    );
    let mut statement = connection.prepare(&sql)?;
    statement.query_map(params_from_iter(values), place)?.collect()
}

/// First and last sequence that the times allow, by blocks.
fn window(connection: &Connection, filter: &Filter) -> rusqlite::Result<Option<(i64, i64)>> {
    let since = filter.since.map_or(i64::MIN, Timestamp::unix_milliseconds);
    let until = filter.until.map_or(i64::MAX, Timestamp::unix_milliseconds);
    let sql = "SELECT min(block), max(block) FROM blocks WHERE last >= ?1 AND first <= ?2";
    let (first, last): (Option<i64>, Option<i64>) =
        connection.query_row(sql, [since, until], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let block = signed(BLOCK);
    Ok(first.zip(last).map(|(first, last)| (first * block, last * block + block - 1)))
}

/// The condition that the fewest records fulfil, as far as a short look tells.
fn rarest(
    connection: &Connection,
    conditions: &[(Field, i64)],
    first: i64,
    last: i64,
) -> rusqlite::Result<Option<Field>> {
    if let [(only, _)] = conditions {
        return Ok(Some(*only));
    }
    let mut best: Option<(i64, Field)> = None;
    for (field, number) in conditions {
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM records INDEXED BY by_{0} WHERE {0} = ? AND sequence BETWEEN ? AND ? LIMIT 2000)",
            field.column()
        );
        let count: i64 = connection.query_row(&sql, [*number, first, last], |row| row.get(0))?;
        if best.is_none_or(|(least, _)| count < least) {
            best = Some((count, *field));
        }
    }
    Ok(best.map(|(_, field)| field))
}
