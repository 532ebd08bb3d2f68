//! The tar file (POSIX ustar). Written with the same owner, time and mode for every member, and read only where it
//! is so: whatever else a header could say would be said by nobody.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::Error;

const BLOCK: usize = 512;

/// The one header of a member.
fn header(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

fn padding(size: u64) -> usize {
    let beyond = usize::try_from(size % BLOCK as u64).expect("less than a block");
    (BLOCK - beyond) % BLOCK
}

/// Adds a member of exactly this size.
pub(super) fn write(out: &mut impl Write, name: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
    out.write_all(header(name, size)?.as_bytes())?;
    if io::copy(&mut content.take(size), out)? != size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} became shorter")));
    }
    out.write_all(&[0; BLOCK][..padding(size)])
}

/// Two blocks of zeros.
pub(super) fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// Members, one after another.
pub(super) struct Members<R> {
    input: R,
    /// For messages: the last one that was right.
    after: String,
}

impl<R: Read> Members<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, after: "the beginning".into() }
    }

    /// Name and size of the next member; `None` at the end, which must be the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<(String, u64)>, Error> {
        let place = format!("the header after {}", self.after);
        let wrong = |what: &str| Error::spoiled(place.clone(), what);
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block).map_err(|_| wrong("the file ends here"))?;
        if block == [0; BLOCK] {
            return self.at_end().map(|()| None);
        }
        let found = Header::from_byte_slice(&block);
        let name = found.path().ok().and_then(|path| path.to_str().map(ToOwned::to_owned));
        let (Some(name), Ok(size)) = (name, found.entry_size()) else { return Err(wrong("it is none of ours")) };
        match header(&name, size) {
            Ok(only) if only.as_bytes() == &block => Ok(Some((name, size))),
            Ok(_) | Err(_) => Err(wrong("it is none of ours")),
        }
    }

    fn at_end(&mut self) -> Result<(), Error> {
        let mut rest = Vec::new();
        let read = self.input.by_ref().take(BLOCK as u64 + 1).read_to_end(&mut rest);
        match read {
            Ok(BLOCK) if rest == [0; BLOCK] => Ok(()),
            Ok(_) | Err(_) => Err(Error::spoiled("the end of the file", "something else is there")),
        }
    }

    /// Hands the content of that member to `sink`; its hash.
    pub(super) fn content(&mut self, name: &str, size: u64, sink: &mut dyn Write) -> Result<[u8; 32], Error> {
        let wrong = |what: &str| Error::spoiled(name, what);
        let (mut hash, mut left, mut buffer) = (Sha256::new(), size, vec![0; 1 << 16]);
        while left > 0 {
            let most = usize::try_from(left.min(1 << 16)).expect("at most 64 KiB");
            let read = self.input.read(&mut buffer[..most]).map_err(|error| wrong(&error.to_string()))?;
            if read == 0 {
                return Err(wrong("the file ends in it"));
            }
            hash.update(&buffer[..read]);
            sink.write_all(&buffer[..read]).map_err(|error| wrong(&error.to_string()))?;
            left -= read as u64;
        }
        let mut rest = vec![0; padding(size)];
        self.input.read_exact(&mut rest).map_err(|_| wrong("the file ends after it"))?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(wrong("something stands after its end"));
        }
        name.clone_into(&mut self.after);
        Ok(hash.finalize().into())
    }
}
