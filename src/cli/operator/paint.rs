//! Colours and tables. Everything is painted; `anstream` takes the colours out where nobody sees them: no
//! terminal, or NO_COLOR.

use anstyle::{AnsiColor, Effects, Style};
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

/// What something means for whoever looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    /// Somebody should look at it.
    Notice,
    Bad,
    /// It is over, or does not matter now.
    Quiet,
    Ahead,
}

impl Tone {
    /// Of a key, a rotation, an approval request, an outcome, or a severity.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "active" | "completed" | "success" | "approved" | "ok" => Self::Good,
            "rotating" | "in_progress" | "pending_approval" | "warning" | "maintenance" => Self::Notice,
            "revoked" | "failure" | "unavailable" | "critical" | "rejected" => Self::Bad,
            "pending" => Self::Ahead,
            "retired" | "expired" | "cancelled" | "used" => Self::Quiet,
            _ => Self::Plain,
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Notice => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default() | Effects::BOLD,
            Self::Quiet => Style::new().dimmed(),
            Self::Ahead => AnsiColor::Cyan.on_default(),
        }
    }

    pub(super) fn paint(self, text: impl std::fmt::Display) -> String {
        let style = self.style();
        format!("{style}{text}{style:#}")
    }

    /// A cell of a table.
    pub(super) fn cell(self, text: impl ToString) -> Cell {
        let cell = Cell::new(text);
        match self {
            Self::Plain => cell,
            Self::Good => cell.fg(Color::DarkGreen),
            Self::Notice => cell.fg(Color::DarkYellow),
            Self::Bad => cell.fg(Color::DarkRed).add_attribute(Attribute::Bold),
            Self::Quiet => cell.add_attribute(Attribute::Dim),
            Self::Ahead => cell.fg(Color::DarkCyan),
        }
    }
}

/// A word in the colour of its meaning.
pub(super) fn word(text: &str) -> Cell {
    Tone::of(text).cell(text)
}

pub(super) fn bold(text: &str) -> String {
    let style = Style::new().bold();
    format!("{style}{text}{style:#}")
}

/// How wide the terminal is; what a page holds where there is none.
pub(super) fn width() -> usize {
    Table::new().width().map_or(120, usize::from)
}

/// A table for people; where it has no rows, a line that says so.
pub(super) fn table(head: &[&str], rows: Vec<Vec<Cell>>, none: &str) {
    if rows.is_empty() {
        anstream::println!("{none}");
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).enforce_styling();
    table.set_header(head.iter().map(|title| Cell::new(title.to_uppercase()).add_attribute(Attribute::Dim)));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    anstream::println!("{}", table.trim_fmt());
}

/// `name  value`, one a line, the values in one column.
pub(super) fn facts(facts: &[(&str, String)]) {
    let wide = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        anstream::println!("{}  {value}", Tone::Quiet.paint(format_args!("{name:<wide$}")));
    }
}
