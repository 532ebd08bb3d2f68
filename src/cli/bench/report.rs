//! The report: a table, JSON, a picture.

use std::path::Path;

use plotters::prelude::{
    BLACK, BLUE, ChartBuilder, Color, IntoDrawingArea, LineSeries, RED, SVGBackend, SeriesLabelPosition, WHITE,
};
use serde::Serialize;

use super::{
    Failure,
    figures::{Figures, best_rate},
};

/// Everything that was measured in one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub token: String,
    pub bare: Vec<Figures>,
    pub service: Vec<Figures>,
    /// For `token.workers`: the fewest that reach 95 % of the best bare rate.
    pub workers: usize,
}

impl Report {
    pub fn new(token: String, bare: Vec<Figures>, service: Vec<Figures>) -> Self {
        let best = best_rate(&bare);
        let enough = |figures: &&Figures| figures.per_second >= 0.95 * best;
        let workers = bare.iter().find(enough).map_or(1, |figures| figures.at_once);
        Self { token, bare, service, workers }
    }

    pub fn print(&self) {
        println!("{}\n", self.token);
        println!(
            "{:<36}{:>8}{:>12}{:>9}{:>10}{:>10}{:>11}{:>9}",
            "", "at once", "per second", "CPU µs", "p50 µs", "p99 µs", "p99.9 µs", "of bare"
        );
        for line in self.bare.iter().chain(&self.service) {
            let share = line.of_bare.map_or_else(String::new, |share| format!("{share:.2}"));
            println!(
                "{:<36}{:>8}{:>12.0}{:>9.1}{:>10.0}{:>10.0}{:>11.0}{share:>9}",
                line.name, line.at_once, line.per_second, line.cpu_us, line.p50_us, line.p99_us, line.p999_us
            );
        }
        println!("\ntoken.workers = {}    (the fewest with 95 % of the bare token's best rate)", self.workers);
    }

    /// Latency of attestations against their rate, as SVG.
    pub fn plot(&self, file: &Path) -> Result<(), Failure> {
        let points: Vec<_> = self.service.iter().filter(|line| line.name.starts_with("everything")).collect();
        let rate = points.iter().map(|line| line.per_second).fold(1.0, f64::max) * 1.1;
        let slowest = points.iter().map(|line| line.p99_us).fold(1.0, f64::max) * 1.1 / 1e3;
        let draw = || -> Result<(), Box<dyn std::error::Error>> {
            let area = SVGBackend::new(file, (800, 480)).into_drawing_area();
            area.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&area)
                .caption("Latency of attestations against load", ("sans-serif", 20))
                .margin(16)
                .x_label_area_size(40)
                .y_label_area_size(56)
                .build_cartesian_2d(0.0..rate, 0.0..slowest)?;
            chart.configure_mesh().x_desc("attestations a second").y_desc("milliseconds").draw()?;
            let p50: Vec<_> = points.iter().map(|line| (line.per_second, line.p50_us / 1e3)).collect();
            let p99: Vec<_> = points.iter().map(|line| (line.per_second, line.p99_us / 1e3)).collect();
            for (name, colour, series) in [("p50", BLUE, p50), ("p99", RED, p99)] {
                chart
                    .draw_series(LineSeries::new(series, colour.stroke_width(2)).point_size(4))?
                    .label(name)
                    .legend(move |(x, y)| plotters::element::PathElement::new([(x, y), (x + 16, y)], colour));
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .border_style(BLACK)
                .background_style(WHITE.mix(0.8))
                .draw()?;
            Ok(area.present()?)
        };
        draw().map_err(|error| Failure::Plot(error.to_string()))
    }
}
