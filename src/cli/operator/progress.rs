//! Something that moves while a command takes long. Only on a terminal, and never in what is printed.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Most answers are there before anything needs to be shown.
const AT_ONCE: Duration = Duration::from_millis(120);

/// Turns while `work` is waited for.
pub(super) fn while_waiting<T>(work: impl FnOnce() -> T) -> T {
    let spinner = spinner("waiting for the appliance");
    let done = work();
    spinner.finish_and_clear();
    done
}

/// Turns on standard error until it is told to stop.
fn spinner(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("the template is a constant");
    let spinner = ProgressBar::new_spinner().with_style(style).with_message(what);
    spinner.enable_steady_tick(AT_ONCE);
    spinner
}
