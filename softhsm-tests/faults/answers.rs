//! What the README says that each CKR code asks for.

use fault_module::CODES;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    FreshSession,
    Reopen,
    Later,
    PinRefused,
    NoPin,
    Configuration,
    Refusal,
}

/// How the rows begin.
const ROWS: [(&str, Answer); 7] = [
    ("made once more in a fresh session", Answer::FreshSession),
    ("module finalized, initialized and logged in to again", Answer::Reopen),
    ("refused for now", Answer::Later),
    ("a PIN is never tried again", Answer::PinRefused),
    ("no PIN was tried", Answer::NoPin),
    ("refused: module, token or configuration", Answer::Configuration),
    ("refused: the same call", Answer::Refusal),
];

/// Every code, and what is to come of it.
pub fn answers() -> Vec<(&'static str, Answer)> {
    let readme = include_str!("../../README.md");
    let answer = |code: &str| {
        let listed = |row: &str| {
            let line = readme.lines().find(|line| line.starts_with(&format!("| {row}"))).unwrap();
            line.split('|').nth(2).unwrap().split(',').any(|listed| listed.trim() == code)
        };
        ROWS.iter().find(|(row, _)| listed(row)).unwrap_or_else(|| panic!("{code} is in no row")).1
    };
    CODES.iter().map(|(code, _)| (*code, answer(code.strip_prefix("CKR_").unwrap()))).collect()
}

/// One or two codes of each row, and those that modules give most.
pub fn some_answers() -> Vec<(&'static str, Answer)> {
    const SOME: [&str; 14] = [
        "CKR_SESSION_HANDLE_INVALID",
        "CKR_OBJECT_HANDLE_INVALID",
        "CKR_GENERAL_ERROR",
        "CKR_DEVICE_ERROR",
        "CKR_DEVICE_REMOVED",
        "CKR_USER_NOT_LOGGED_IN",
        "CKR_CRYPTOKI_NOT_INITIALIZED",
        "CKR_VENDOR_DEFINED",
        "CKR_SESSION_COUNT",
        "CKR_PIN_INCORRECT",
        "CKR_USER_PIN_NOT_INITIALIZED",
        "CKR_MECHANISM_INVALID",
        "CKR_FUNCTION_REJECTED",
        "CKR_USER_ALREADY_LOGGED_IN",
    ];
    answers().into_iter().filter(|(code, _)| SOME.contains(code)).collect()
}
