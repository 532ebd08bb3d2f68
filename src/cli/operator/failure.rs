//! Why a command did not do what it was asked, in plain words: what, why, what to do.

use std::{io, path::PathBuf};

use super::{
    session::{Answer, Session},
    value::text,
};
use crate::{exit_code::ExitCode, http::problem::KINDS};

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Config(String),
    #[error(
        "the configuration {} opens no socket: set http.unix_socket = \"/run/verification-signer/api.sock\" there and start the \
         appliance again, or name a socket with --socket",
        .0.display()
    )]
    NoSocket(PathBuf),
    #[error("nobody answers at the socket {}: {source}; {}", .socket.display(), remedy(.source))]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("the name that was given cannot stand in an address: copy it from the list")]
    NoSuchName,
    #[error("{0}: nobody can be asked here; say --yes if you are sure")]
    NobodyToAsk(&'static str),
    #[error("nothing was done")]
    Declined,
    #[error("refused")]
    Refused(Box<Answer>),
    #[error("waits")]
    Waiting(Box<Answer>),
    /// What had to be said is said.
    #[error("")]
    Said(ExitCode),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "work as root, or as a member of the group that the socket belongs to (verification-signer)"
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is the appliance running (systemctl status verification-signer), and is this its socket?"
        }
        _ => "look at its log (journalctl -u verification-signer)",
    }
}

impl Failure {
    /// Says it, and how the process ends.
    pub(super) fn report(&self, session: Option<&Session>) -> ExitCode {
        match (self, session) {
            (Self::Refused(answer) | Self::Waiting(answer), Some(session)) if session.json => {
                anstream::println!("{}", answer.text);
            }
            (Self::Refused(answer), _) => refused(answer),
            (Self::Waiting(answer), Some(session)) => super::approvals::explain_waiting(&answer.value, session),
            (Self::Said(_), _) => {}
            (error, _) => eprintln!("verification-signer: {error}"),
        }
        self.code()
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::NoSocket(_) => ExitCode::Config,
            Self::Unreachable { .. } => ExitCode::Unavailable,
            Self::NoSuchName | Self::NobodyToAsk(_) | Self::Declined => ExitCode::Usage,
            Self::Waiting(_) => ExitCode::Later,
            Self::Said(code) => *code,
            Self::Refused(answer) => match answer.status {
                401 | 403 => ExitCode::NotPermitted,
                429 => ExitCode::Later,
                400..=499 => ExitCode::Refused,
                _ => ExitCode::Unavailable,
            },
        }
    }
}

/// A problem answer (RFC 9457): its detail ends with the remedy, which is told apart here.
fn refused(answer: &Answer) {
    let problem = &answer.value;
    let name = text(problem, "/type").trim_start_matches("/problems/").to_owned();
    let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
        eprintln!("verification-signer: the appliance answered {} {}", answer.status, answer.text);
        return;
    };
    let detail = text(problem, "/detail");
    let why = detail.strip_suffix(kind.remedy).map_or(detail, str::trim_end);
    eprintln!("verification-signer: {}", kind.title);
    if !why.is_empty() {
        eprintln!("  why         {why}");
    }
    eprintln!("  what to do  {}", typed(&name).unwrap_or(kind.remedy));
    eprintln!("  ({} {name}; request {})", answer.status, text(problem, "/request_id"));
}

/// What to type here, where the remedy is written for those who speak HTTP.
fn typed(problem: &str) -> Option<&'static str> {
    Some(match problem {
        "unknown-key" => "List the keys with `verification-signer keys`.",
        "no-active-key" | "no-key-may-sign" => {
            "Make a new key with `verification-signer rotate`; where there never was one, with `verification-signer init`."
        }
        "unknown-rotation" => "List the rotations with `verification-signer rotations`.",
        "rotation-in-progress" => {
            "Complete it (`verification-signer complete`), cancel it (`verification-signer cancel`), or rotate with --emergency."
        }
        "rotation-refused" => {
            "Correct the item that is named; `verification-signer rotate --dry-run` shows all of them."
        }
        "overlap-running" => "Wait until it has, or say --force: the old key is then retired at once.",
        "cannot-go-back" => "Complete it (`verification-signer complete`), or rotate again.",
        "unknown-approval" => "List them with `verification-signer approvals list`.",
        "unknown-block" => "List the blocks with `verification-signer blocks list --all`.",
        "not-authenticated" | "missing-role" => {
            "Work as a user who has the role: [auth] of the configuration says who has which, by unix_uids and unix_gids."
        }
        "approval-closed" => "Give the command again: it then waits for a new approval.",
        _ => return None,
    })
}
