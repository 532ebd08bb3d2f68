//! Small and large by turns: what drifts on the machine drifts for both.

use std::{borrow::Borrow, time::Duration};

use crate::{
    CLIENTS, bare, number, seconds,
    support::{
        appliance::Appliance,
        load::{Figures, Stock, as_fast_as_answered},
        softhsm::SoftHsm,
    },
};

/// How much is asked at once, and over how many connections each.
#[derive(Clone, Copy)]
pub struct Load {
    pub clients: usize,
    pub connections: usize,
}

impl Load {
    pub fn usual() -> Self {
        Self { clients: CLIENTS, connections: 1 }
    }

    fn on(self, appliance: &Appliance) -> Figures {
        let stock = Stock::default();
        let time = seconds();
        // More than any token here signs.
        stock.fill(appliance, usize::try_from(time.as_secs() + 1).unwrap() * 20_000);
        let _warm = as_fast_as_answered(appliance, &stock, self.clients, self.connections, Duration::from_millis(500));
        as_fast_as_answered(appliance, &stock, self.clients, self.connections, time)
    }
}

pub struct Turns<'a> {
    names: [String; 2],
    tokens: Option<[&'a SoftHsm; 2]>,
}

impl<'a> Turns<'a> {
    pub fn of(names: [String; 2]) -> Self {
        Self { names, tokens: None }
    }

    /// Measures the tokens themselves as well.
    pub fn bare(self, tokens: [&'a SoftHsm; 2]) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// Each appliance is started for its turn, so that the other has the machine alone.
    pub fn run(self, start: impl Fn(usize) -> Appliance, load: Load) {
        if let Some(tokens) = self.tokens {
            let names = self.names.each_ref().map(|name| format!("bare C_Sign: {name}"));
            compare(&names, |at| bare::signing(tokens[at], seconds()));
        }
        compare(&self.names, |at| {
            let appliance = start(at);
            let figures = load.on(&appliance);
            appliance.stop();
            figures
        });
    }

    /// On appliances that do nothing in the other's turn.
    pub fn run_on<A: Borrow<Appliance>>(self, appliances: impl AsRef<[A]>, loads: [Load; 2]) {
        let appliances = appliances.as_ref();
        compare(&self.names, |at| loads[at].on(appliances[at].borrow()));
    }
}

/// Twice in each turn, in the order of ABBA: what rises or falls all the time falls out as well.
fn compare(names: &[String; 2], measure: impl Fn(usize) -> Figures) {
    let mut sums = [Figures::default(), Figures::default()];
    for turn in 0..number("BENCH_TURNS", 4) {
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            sums[at] = std::mem::take(&mut sums[at]).and(measure(at));
        }
    }
    names.iter().zip(&sums).for_each(|(name, figures)| show(name, figures));
    let [small, large] = &sums;
    let (rate, cpu) = (large.per_second() / small.per_second(), large.cpu_us() / small.cpu_us());
    let flat = |ratio: f64| (0.85..=1.15).contains(&ratio);
    let verdict = if flat(rate) && flat(cpu) { "flat" } else { "NOT within 15 %" };
    println!("  = {rate:.2} of the rate, {cpu:.2} times the CPU: {verdict}\n");
}

pub fn heading(of: &str) {
    println!("{of:<56} {:>10} {:>8} {:>8} {:>8} {:>9}", "per second", "CPU µs", "p50 µs", "p99 µs", "p99.9 µs");
}

pub fn show(name: &str, figures: &Figures) {
    println!(
        "{name:<56} {:>10.0} {:>8.1} {:>8.0} {:>8.0} {:>9.0}",
        figures.per_second(),
        figures.cpu_us(),
        figures.percentile_us(500),
        figures.percentile_us(990),
        figures.percentile_us(999),
    );
}
