//! What a measurement comes to.

use std::{fs, time::Duration};

use serde::Serialize;

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    pub name: String,
    /// Of the token's workers, or connections of clients.
    pub at_once: usize,
    pub per_second: f64,
    /// Microseconds of CPU each, of the server and of the process that holds its module.
    pub cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// Of the best rate of the bare token, for what has it sign once.
    pub of_bare: Option<f64>,
}

impl Figures {
    pub fn of(name: &str, at_once: usize, mut taken: Vec<Duration>, elapsed: Duration, cpu: Duration) -> Self {
        taken.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let count = taken.len().max(1) as f64;
        let percentile = |per_mille: usize| {
            let at = (taken.len() * per_mille / 1000).min(taken.len().saturating_sub(1));
            taken.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self {
            name: name.to_owned(),
            at_once,
            per_second: count / elapsed.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / count,
            p50_us: percentile(500),
            p99_us: percentile(990),
            p999_us: percentile(999),
            of_bare: None,
        }
    }
}

/// The best of these rates.
pub(super) fn best_rate(all: &[Figures]) -> f64 {
    all.iter().map(|figures| figures.per_second).fold(0.0, f64::max)
}

/// CPU of a process and of its children: utime and stime of proc(5), in ticks of 10 ms.
pub(super) fn cpu(pid: u32) -> Duration {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let ticks = stats.filter_map(|stat| {
        let (number, rest) = stat.split_once(' ')?;
        let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split(' ').collect();
        let is_ours = number == pid.to_string() || fields.get(1) == Some(&&*pid.to_string());
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        is_ours.then(|| Some(ticks(11)? + ticks(12)?))?
    });
    Duration::from_millis(ticks.sum::<u64>() * 10)
}
