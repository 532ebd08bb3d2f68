//! Profiles: configuration files with comments, one a kind of HSM. A few lines of one are replaced, and the
//! result must be what was meant.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Error, Options, Questions};
use crate::{
    cli::operator::PACKAGED_SOCKET,
    config::Config,
    key::SignerId,
    token::{PinSource, TokenUri},
};

/// The credential under which systemd hands the PIN over.
pub(super) const CREDENTIAL: &str = "hsm-pin";

pub(super) struct Profile {
    pub(super) name: String,
    pub(super) module: PathBuf,
    text: String,
}

impl Profile {
    pub(super) fn choose(options: &Options, questions: &Questions) -> Result<Self, Error> {
        let names = names(&options.profiles)?;
        let known = names.join(", ");
        let question = format!("Which HSM ({known})");
        let name = questions.answer(options.profile.clone(), "--profile", &question, None)?;
        if !names.contains(&name) {
            return Err(Error::Usage(format!("there is no profile {name:?}; there are: {known}")));
        }
        let path = options.profiles.join(format!("{name}.toml"));
        let text = fs::read_to_string(&path).map_err(Error::io(path.display()))?;
        let module =
            Config::parse(&text).map_err(|why| Error::Refused(format!("{}: {why}", path.display())))?.token.module;
        Ok(Self { name, module, text })
    }

    /// The profile for this signer and token.
    pub(super) fn configuration(&self, signer: &SignerId, module: &Path, uri: &TokenUri) -> Result<String, Error> {
        let lines = [
            ("id = ", format!("id = {:?}", signer.as_str())),
            ("module = ", format!("module = {:?}", module.display().to_string())),
            ("uri = ", format!("uri = {:?}", uri.to_string())),
            ("pin_file = ", format!("pin_credential = {CREDENTIAL:?}")),
        ];
        let mut text = self.text.clone();
        for (start, line) in lines {
            text = replaced(&text, start, &line).ok_or_else(|| self.unlike(start))?;
        }
        let text = with_socket(&text.replace("# pin_credential = \"hsm-pin\"\n", ""));
        let config = Config::parse(&text).map_err(|why| Error::Refused(format!("profile {}: {why}", self.name)))?;
        let meant = config.signer.id == *signer
            && config.token.module == module
            && config.token.uri == *uri
            && config.http.unix_socket.is_some()
            && config.token.pin_source() == Ok(PinSource::Credential(CREDENTIAL.into()));
        if meant { Ok(text) } else { Err(self.unlike("what was asked for")) }
    }

    fn unlike(&self, what: &str) -> Error {
        Error::Refused(format!("profile {} has no line for {what}: write the configuration by hand", self.name))
    }
}

fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(directory).map_err(Error::io(directory.display()))?;
    let name = |entry: fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_owned());
    let mut names: Vec<_> = entries.filter_map(|entry| name(entry.ok()?)).collect();
    names.sort();
    Ok(names)
}

/// Opens the socket that operators' commands go to: the line of the profile, or one more.
fn with_socket(text: &str) -> String {
    const COMMENTED: &str = "\n# unix_socket = ";
    let line = format!("unix_socket = {PACKAGED_SOCKET:?}\n");
    if text.contains("\nunix_socket = ") {
        return text.to_owned();
    }
    if text.contains(COMMENTED) {
        return text.replacen(COMMENTED, "\nunix_socket = ", 1);
    }
    match text.split_once("\n[http]\n") {
        Some((before, after)) => format!("{before}\n[http]\n{line}{after}"),
        None => format!("{text}\n[http]\n# For `verification-signer status` and its like.\n{line}"),
    }
}

/// The text with its first line that begins so replaced.
fn replaced(text: &str, start: &str, line: &str) -> Option<String> {
    let at = if text.starts_with(start) { 0 } else { text.find(&format!("\n{start}"))? + 1 };
    let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
    Some(format!("{}{line}{}", &text[..at], &text[end..]))
}
