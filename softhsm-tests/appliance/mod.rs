//! What makes the program an appliance: units, alerts, the dashboard, the package, the runbook.

mod kubernetes;
mod monitoring;
mod notify;
mod package;
mod runbook;
mod setup;
mod units;
