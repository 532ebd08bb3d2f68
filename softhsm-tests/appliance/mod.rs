//! What makes the program an appliance: units, alerts, the dashboard, the package, the runbook.

mod monitoring;
mod notify;
mod runbook;
mod units;
