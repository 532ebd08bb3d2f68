//! Questions to whoever sits at the terminal. Nobody is asked where nobody sits.

use std::io::{self, BufRead, IsTerminal, Write};

use super::Error;

pub(super) struct Questions {
    interactive: bool,
}

impl Questions {
    pub(super) fn new() -> Self {
        Self { interactive: io::stdin().is_terminal() && io::stdout().is_terminal() }
    }

    pub(super) fn interactive(&self) -> bool {
        self.interactive
    }

    /// What the flag says, else what is answered, else the default. Without any of them, a refusal.
    pub(super) fn answer(
        &self,
        given: Option<String>,
        flag: &str,
        question: &str,
        default: Option<&str>,
    ) -> Result<String, Error> {
        if let Some(given) = given {
            return Ok(given);
        }
        let answered = if self.interactive { ask(question, default)? } else { String::new() };
        match (answered.trim(), default) {
            ("", Some(default)) => Ok(default.to_owned()),
            ("", None) => Err(Error::Usage(format!("{question}: name it with {flag}"))),
            (answer, _) => Ok(answer.to_owned()),
        }
    }
}

fn ask(question: &str, default: Option<&str>) -> Result<String, Error> {
    let unusable = || Error::io("the terminal");
    print!("{question}{}: ", default.map(|default| format!(" [{default}]")).unwrap_or_default());
    io::stdout().flush().map_err(unusable())?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(unusable())?;
    Ok(line)
}
