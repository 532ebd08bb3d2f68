//! The files of the trail: `audit.log`, which grows, and closed segments
//! `audit.log.<time>-<last sequence>`, which may be compressed (`.gz`). Beside a closed segment lies
//! the checkpoint with which it was closed (`.checkpoint`).

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use crate::timestamp::Timestamp;

/// The segment being written.
pub const OPEN: &str = "audit.log";

/// Longer than any record: details are bounded by the request body.
pub const LONGEST_LINE: u64 = 1 << 20;

/// One file of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub path: PathBuf,
    /// The last record's sequence; `None` for the file that grows.
    pub last: Option<u64>,
    pub is_compressed: bool,
}

impl Segment {
    fn from_path(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        if name == OPEN {
            return Some(Self { path, last: None, is_compressed: false });
        }
        let closed = name.strip_prefix(OPEN)?.strip_prefix('.')?;
        let (closed, is_compressed) = closed.strip_suffix(".gz").map_or((closed, false), |plain| (plain, true));
        let (_, last) = closed.rsplit_once('-')?;
        let last = last.bytes().all(|b| b.is_ascii_digit()).then(|| last.parse().ok())??;
        Some(Self { path, last: Some(last), is_compressed })
    }

    /// The name without directory and `.gz`: the same before and after compression.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(".gz").unwrap_or(&name).to_owned()
    }

    /// When it was closed, by its name.
    #[must_use]
    pub fn closed_at(&self) -> Option<Timestamp> {
        let name = self.name();
        let (stamp, _) = name.strip_prefix(OPEN)?.strip_prefix('.')?.rsplit_once('-')?;
        // `20260131T093000.5Z`: the separators were left out.
        let (date, time) = stamp.split_once('T').filter(|(date, time)| date.len() == 8 && time.len() >= 7)?;
        let text = format!(
            "{}-{}-{}T{}:{}:{}",
            date.get(..4)?,
            date.get(4..6)?,
            date.get(6..)?,
            time.get(..2)?,
            time.get(2..4)?,
            time.get(4..)?
        );
        Timestamp::parse(&text).ok()
    }

    /// Where the checkpoint lies with which it was closed.
    #[must_use]
    pub fn checkpoint_path(&self) -> PathBuf {
        self.path.with_file_name(format!("{}.checkpoint", self.name()))
    }

    /// The records, from `offset` of the uncompressed text on.
    pub fn lines_from(&self, offset: u64) -> io::Result<Lines> {
        let mut file = match File::open(&self.path) {
            // It was compressed since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.last.is_some() && !self.is_compressed => {
                let path = PathBuf::from(format!("{}.gz", self.path.display()));
                return Self { path, is_compressed: true, ..self.clone() }.lines_from(offset);
            }
            opened => opened?,
        };
        let mut reader: Box<dyn Read + Send> = if self.is_compressed {
            Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file)))
        } else {
            io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
            Box::new(file)
        };
        if self.is_compressed && io::copy(&mut (&mut reader).take(offset), &mut io::sink())? < offset {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Lines { reader: BufReader::with_capacity(1 << 18, reader), offset, buffer: Vec::new() })
    }
}

/// The name of a segment closed `at` this time after the record `last`.
#[must_use]
pub fn closed_name(at: Timestamp, last: u64) -> String {
    format!("{OPEN}.{}-{last:012}", at.to_string().replace([':', '-'], ""))
}

/// All segments, oldest first, the growing one last.
pub fn list(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    if directory.exists() {
        for entry in std::fs::read_dir(directory)? {
            found.extend(Segment::from_path(entry?.path()));
        }
    }
    // The plain file first: beside it, a compressed one may not be whole yet.
    found.sort_by_key(|segment: &Segment| (segment.last.unwrap_or(u64::MAX), segment.is_compressed));
    found.dedup_by_key(|segment| segment.last);
    Ok(found)
}

/// The lines of a segment, one after another.
pub struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    offset: u64,
    buffer: Vec<u8>,
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Where it begins.
    pub offset: u64,
    /// Without its newline.
    pub bytes: &'a [u8],
    /// False for what follows the last newline.
    pub is_whole: bool,
}

impl Lines {
    /// The next line; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let read = (&mut self.reader).take(LONGEST_LINE).read_until(b'\n', &mut self.buffer)?;
        let offset = self.offset;
        self.offset += read as u64;
        if read == 0 {
            return Ok(None);
        }
        let is_whole = self.buffer.last() == Some(&b'\n');
        Ok(Some(Line { offset, bytes: &self.buffer[..read - usize::from(is_whole)], is_whole }))
    }

    /// Where the next line begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
}
