//! What goes into a backup, under which names.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;
use crate::{
    config::Config,
    key::{StoredRecord, seen::Seen},
    timestamp::Timestamp,
};

pub(super) const ABOUT: &str = "about.json";
pub(super) const CONFIG: &str = "config.toml";
pub(super) const API_KEYS: &str = "api-keys.json";
pub(super) const LEDGER: &str = "ledger.json";
pub(super) const AUDIT_KEYS: &str = "audit-keys.pem";
/// What stands before the names of the files of the state directory, and of the trail.
/// Public halves, by the key's number.
pub(super) fn public_key(number: u32) -> String {
    format!("keys/{number}.pem")
}

pub(super) fn certificates(number: u32) -> String {
    format!("certificates/{number}.pem")
}

pub(super) const STATE: &str = "state/";
pub(super) const TRAIL: &str = "audit/";

/// What is remembered between starts. Not the approvals (see the room's introduction), and not the latch on
/// a refused PIN: its salted hash is one of a short secret.
const STATE_FILES: [&str; 4] = ["ledger-seen.json", "audit-seen.json", "blocks.json", "maintenance.json"];

/// Answers to requests that must not be done twice.
const ONCE: &str = "idempotency";

/// Files beside the trail that are made again.
const DERIVED: [&str; 3] = ["audit.index", "audit.nodes", "audit.reserve"];

/// Of what, and from when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    pub format: u32,
    pub created_at: Timestamp,
    pub signer_id: String,
    pub version: String,
    pub host: String,
    pub token_uri: String,
    pub token_serial: String,
    /// The trail is in it.
    pub trail: bool,
    /// How far its ledger goes.
    pub seen: Seen,
}

/// A ledger record, as it stands on the token.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    label: String,
    value: String,
}

impl From<&StoredRecord> for Record {
    fn from(record: &StoredRecord) -> Self {
        Self { label: record.label.clone(), value: hex::encode(&record.value) }
    }
}

impl Record {
    pub(super) fn stored(self) -> Option<StoredRecord> {
        Some(StoredRecord { label: self.label, value: hex::decode(self.value).ok()? })
    }
}

/// One member, open, as long as it was when it was looked at.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) size: u64,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    File(File),
}

impl Member {
    pub(super) fn bytes(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { name: name.into(), size: bytes.len() as u64, content: Content::Bytes(bytes) }
    }

    fn file(name: String, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { name, size: file.metadata()?.len(), content: Content::File(file) })
    }

    /// From its beginning.
    pub(super) fn reader(&mut self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match &mut self.content {
            Content::Bytes(bytes) => Box::new(&bytes[..]),
            Content::File(file) => {
                file.seek(SeekFrom::Start(0))?;
                Box::new(file)
            }
        })
    }

    pub(super) fn hash(&mut self) -> io::Result<[u8; 32]> {
        let size = self.size;
        let mut hash = Sha256::new();
        let mut reader = self.reader()?.take(size);
        let mut buffer = vec![0; 1 << 16];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(hash.finalize().into()),
                read => hash.update(&buffer[..read]),
            }
        }
    }

    /// A growing file counts up to its last whole line.
    fn whole_lines(mut self) -> io::Result<Self> {
        const STEP: u64 = 1 << 16;
        let Content::File(file) = &mut self.content else { return Ok(self) };
        let mut end = self.size;
        while end > 0 {
            let begin = end.saturating_sub(STEP);
            let mut block = vec![0; usize::try_from(end - begin).expect("at most 64 KiB")];
            file.seek(SeekFrom::Start(begin))?;
            file.read_exact(&mut block)?;
            if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
                self.size = begin + at as u64 + 1;
                return Ok(self);
            }
            end = begin;
        }
        self.size = 0;
        Ok(self)
    }
}

/// What the state directory remembers.
pub(super) fn of_state(config: &Config) -> Result<Vec<Member>, Error> {
    let directory = &config.state.directory;
    let mut names: Vec<String> = STATE_FILES.map(ToOwned::to_owned).into();
    let once = directory.join(ONCE);
    if once.is_dir() {
        names.extend(listed(&once)?.into_iter().map(|name| format!("{ONCE}/{name}")));
    }
    let mut members = Vec::new();
    for name in names {
        let path = directory.join(&name);
        match Member::file(format!("{STATE}{name}"), &path) {
            Ok(member) => members.push(member),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&path)(error)),
        }
    }
    Ok(members)
}

/// The trail as it is now. The growing file is opened before the others are listed: one that is closed meanwhile
/// is then the same file, and in it once.
pub(super) fn of_trail(config: &Config) -> Result<Vec<Member>, Error> {
    let directory = &config.audit.directory;
    let path = directory.join("audit.log");
    let growing =
        Member::file(format!("{TRAIL}audit.log"), &path).and_then(Member::whole_lines).map_err(Error::io(&path))?;
    let inode = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    let same = match &growing.content {
        Content::File(file) => inode(file),
        Content::Bytes(_) => None,
    };
    let mut members = Vec::new();
    for name in listed(directory)? {
        if name == "audit.log" || DERIVED.iter().any(|derived| name.starts_with(derived)) {
            continue;
        }
        let path = directory.join(&name);
        let member = Member::file(format!("{TRAIL}{name}"), &path).map_err(Error::io(&path))?;
        if !matches!(&member.content, Content::File(file) if inode(file) == same) {
            members.push(member);
        }
    }
    members.push(growing);
    Ok(members)
}

/// Names of the files in a directory, sorted; none that is being written.
fn listed(directory: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let entry = entry.map_err(Error::io(directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let being_written = Path::new(&name).extension().is_some_and(|extension| extension == "new");
        if entry.file_type().is_ok_and(|kind| kind.is_file()) && is_plain(&name) && !being_written {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A name that stays in its directory.
pub(super) fn is_plain(name: &str) -> bool {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(harmless)
}
