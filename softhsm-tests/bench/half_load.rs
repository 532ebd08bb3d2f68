//! Latency at half of full load. Requests come at times that are fixed before, as from clients who know nothing of
//! each other, and are measured from when they should have been sent.

use crate::{
    Place, bare, seconds,
    support::{
        load::{Figures, Stock, as_fast_as_answered, at_times, times},
        redis::RedisServer,
    },
    turns::{heading, show},
};

/// Clients that find the most it bears, and those that wait for their times.
const FULL: usize = 64;
const HALF: usize = 48;

pub fn in_the_process() {
    measure("nonces in the process", &Place::new(""));
}

pub fn in_redis() {
    let redis = RedisServer::start(&[]);
    measure("nonces in Redis", &Place::new(&format!("[redis]\nurl = \"{}\"\n", redis.url())));
}

fn measure(name: &str, place: &Place) {
    heading(&format!("half load, {name}"));
    place.serve().stop();
    let call = bare::signing(&place.token, seconds());
    show("the bare call, one after the other", &call);
    let appliance = place.serve();
    let stock = Stock::default();
    let prepare = || stock.fill(&appliance, usize::try_from(seconds().as_secs() + 1).unwrap() * 40_000);
    prepare();
    let full = as_fast_as_answered(&appliance, &stock, FULL, 1, seconds());
    show(&format!("full load, {FULL} at once"), &full);
    let (rate, time) = (full.per_second() / 2.0, seconds() * 2);
    let paced = bare::signing_at_times(&place.token, rate, time);
    show("the bare call at the times of half load", &paced);
    prepare();
    let half = at_times(&appliance, &stock, HALF, &times(rate, time));
    show("half load", &half);
    let above = |of: &Figures, per_mille| (half.percentile_us(per_mille) - of.percentile_us(per_mille)) / 1e3;
    println!(
        "  = p50 {:.2} ms and p99 {:.2} ms above the bare call's ({:.2} and {:.2} above the same at these times)\n",
        above(&call, 500),
        above(&call, 990),
        above(&paced, 500),
        above(&paced, 990)
    );
    appliance.stop();
}
