//! The socket in the file system: made under another name, with its mode, and then put in its place,
//! so that there is no moment in which others could open it.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

/// Listens at `path`. What an earlier run left there is replaced; a socket at which somebody still
/// listens, or anything else, is not.
pub(super) fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(taken("is not a socket")),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(taken("is the socket of another process")),
        Ok(_) | Err(_) => {}
    }
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
    fs::rename(&temporary, path)?;
    Ok(listener)
}

fn taken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, what.to_owned())
}
