//! Compressed segments: gzip (RFC 1952) in members of 256 KiB of text each, so that one record can be
//! read without the rest. Every member's header says how long the member is, in a field of its own
//! (RFC 1952 §2.3.1.1); other tools read the file as any gzip file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder, read::GzDecoder};

/// Text in one member.
const MEMBER: usize = 1 << 18;

/// Header, XLEN and subfield up to the member's length, which follows in four bytes.
const LENGTH_AT: usize = 16;
const HEADER: usize = LENGTH_AT + 4;

/// Compresses a closed segment beside itself, checks that it reads as the original, and removes that.
pub fn compress(plain: &Path) -> io::Result<PathBuf> {
    let mut name = plain.as_os_str().to_owned();
    name.push(".gz");
    let whole = PathBuf::from(name);
    let partial = whole.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&partial)?;
    let mut text = File::open(plain)?;
    let mut buffer = Vec::with_capacity(MEMBER);
    loop {
        buffer.clear();
        if (&mut text).take(MEMBER as u64).read_to_end(&mut buffer)? == 0 {
            break;
        }
        out.write_all(&member(&buffer)?)?;
    }
    out.sync_all()?;
    if !reads_as(&partial, plain)? {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the compressed file does not read as the original"));
    }
    std::fs::rename(&partial, &whole)?;
    crate::durable::sync_parent(&whole)?;
    std::fs::remove_file(plain)?;
    Ok(whole)
}

fn member(text: &[u8]) -> io::Result<Vec<u8>> {
    // Subfield "VS", four bytes: the length of the whole member, known when it is made.
    let builder = GzBuilder::new().extra(*b"VS\x04\0\0\0\0\0");
    let mut encoder = builder.write(Vec::new(), Compression::default());
    encoder.write_all(text)?;
    let mut bytes = encoder.finish()?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    bytes[LENGTH_AT..HEADER].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

fn reads_as(compressed: &Path, plain: &Path) -> io::Result<bool> {
    let mut left = io::BufReader::new(flate2::read::MultiGzDecoder::new(File::open(compressed)?));
    let mut right = io::BufReader::new(File::open(plain)?);
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = right.read(&mut b)?;
        if read == 0 {
            return Ok(left.read(&mut a)? == 0);
        }
        if left.read_exact(&mut a[..read]).is_err() || a[..read] != b[..read] {
            return Ok(false);
        }
    }
}

/// Reads `length` bytes of the text at `offset`.
pub fn read_at(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let (mut at, wanted) = (0, offset / MEMBER as u64);
    for _ in 0..wanted {
        at += member_length(&file, at)?;
    }
    let mut skip = usize::try_from(offset % MEMBER as u64).map_err(io::Error::other)?;
    let mut found = Vec::with_capacity(length);
    while found.len() < length {
        let size = member_length(&file, at)?;
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, at)?;
        let mut text = Vec::with_capacity(MEMBER);
        GzDecoder::new(&bytes[..]).read_to_end(&mut text)?;
        let part = text.get(skip..).unwrap_or_default();
        found.extend_from_slice(&part[..part.len().min(length - found.len())]);
        skip = 0;
        at += size;
    }
    Ok(found)
}

fn member_length(file: &File, at: u64) -> io::Result<u64> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, at)?;
    let length = u32::from_le_bytes(header[LENGTH_AT..].try_into().expect("four bytes"));
    if header[..2] != [0x1f, 0x8b] || header[12..14] != *b"VS" || (length as usize) < HEADER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a compressed segment of ours"));
    }
    Ok(u64::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_a_compressed_file_reads_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log.x-1");
        let text: Vec<u8> =
            (0..200_000u32).flat_map(|number| format!("line {}\n", number % 977).into_bytes()).collect();
        std::fs::write(&path, &text).unwrap();
        let compressed = compress(&path).unwrap();
        assert!(!path.exists() && compressed.metadata().unwrap().len() < text.len() as u64 / 4);
        for offset in [0, 1, MEMBER - 1, MEMBER, MEMBER + 1, 3 * MEMBER - 2, text.len() - 5] {
            assert_eq!(read_at(&compressed, offset as u64, 5).unwrap(), text[offset..offset + 5]);
        }
        assert!(read_at(&compressed, text.len() as u64 - 2, 5).is_err());
    }

    #[test]
    fn gzip_itself_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log.x-1");
        std::fs::write(&path, "line\n".repeat(100_000)).unwrap();
        let compressed = compress(&path).unwrap();
        let output = std::process::Command::new("gzip").args(["-dc"]).arg(compressed).output().unwrap();
        assert!(output.status.success() && output.stdout == "line\n".repeat(100_000).into_bytes());
    }
}
