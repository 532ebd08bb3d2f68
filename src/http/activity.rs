//! `GET /api/v1/activity`: what this appliance has done since it started. The same counters that
//! Prometheus reads: whoever asks twice has rates.

use actix_web::{HttpResponse, web};
use prometheus::{
    core::Collector,
    proto::{Metric, MetricFamily},
};
use serde::Serialize;

use crate::{metrics::Metrics, service::Service, timestamp::Timestamp};

/// Counters since the start, and the time they were read.
#[derive(Serialize, utoipa::ToSchema)]
struct ActivityView {
    at: Timestamp,
    attestations: AttestationsView,
    nonces: NoncesView,
    access_denied: u64,
    /// Requests turned away by a limit or a block.
    limited: u64,
    key_rotations: u64,
}

/// Attestations that were asked for.
#[derive(Serialize, utoipa::ToSchema)]
struct AttestationsView {
    signed: u64,
    refused: u64,
    latency: LatencyView,
}

/// How long they took, refused ones included.
#[derive(Serialize, utoipa::ToSchema)]
struct LatencyView {
    count: u64,
    sum_seconds: f64,
    /// How many took so long at most, shortest first.
    buckets: Vec<BucketView>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct BucketView {
    at_most_seconds: f64,
    count: u64,
}

/// Nonces.
#[derive(Serialize, utoipa::ToSchema)]
struct NoncesView {
    issued: u64,
    spent: u64,
    refused: u64,
    expired: u64,
    replays: u64,
}

/// The counters.
#[utoipa::path(
    get,
    path = "/api/v1/activity",
    operation_id = "activity_activity",
    tag = "console",
    responses((status = 200, description = "Done", body = ActivityView))
)]
pub async fn activity(service: web::Data<Service>) -> HttpResponse {
    let metrics = &service.metrics;
    HttpResponse::Ok().json(ActivityView {
        at: service.clock.now(),
        attestations: attestations(metrics),
        nonces: NoncesView {
            issued: metrics.nonce_created.get(),
            spent: metrics.nonce_used.get(),
            refused: total(&metrics.nonce_rejected, |_| true),
            expired: metrics.nonce_expired.get(),
            replays: metrics.nonce_replays.get(),
        },
        access_denied: metrics.access_denied.get(),
        limited: total(&metrics.ratelimit_blocked, |_| true),
        key_rotations: metrics.key_rotations.get(),
    })
}

fn attestations(metrics: &Metrics) -> AttestationsView {
    let succeeded = |metric: &Metric| metric.get_label().iter().any(|label| label.value() == "success");
    AttestationsView {
        signed: total(&metrics.sign_requests, succeeded),
        refused: total(&metrics.sign_requests, |metric| !succeeded(metric)),
        latency: latency(&metrics.sign_latency.collect()),
    }
}

/// The sum over those labels that are wanted.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers that only grow")]
fn total(counters: &impl Collector, wanted: impl Fn(&Metric) -> bool) -> u64 {
    let families = counters.collect();
    let metrics = families.iter().flat_map(MetricFamily::get_metric);
    metrics.filter(|metric| wanted(metric)).map(|metric| metric.get_counter().get_value()).sum::<f64>() as u64
}

/// All kinds of attestation as one histogram: they have the same buckets.
fn latency(families: &[MetricFamily]) -> LatencyView {
    let mut all = LatencyView { count: 0, sum_seconds: 0.0, buckets: Vec::new() };
    for metric in families.iter().flat_map(MetricFamily::get_metric) {
        let histogram = metric.get_histogram();
        all.count += histogram.get_sample_count();
        all.sum_seconds += histogram.get_sample_sum();
        for (at, bucket) in histogram.get_bucket().iter().enumerate() {
            if all.buckets.len() == at {
                all.buckets.push(BucketView { at_most_seconds: bucket.upper_bound(), count: 0 });
            }
            all.buckets[at].count += bucket.cumulative_count();
        }
    }
    all
}
