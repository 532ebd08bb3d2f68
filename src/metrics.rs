//! The metrics of the service, under the names that the runbook and its alerts grep for.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, process_collector::ProcessCollector,
};

const NAMESPACE: &str = "virtengine_verification";

/// From 100 µs (a software token) to 10 s (a call at its deadline).
const LATENCY_BUCKETS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// From one alone to the most that the format knows.
const SIZE_BUCKETS: [f64; 9] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0];

/// Every metric, registered once per process.
pub struct Metrics {
    registry: Registry,
    pub active_keys: IntGauge,
    pub key_age_seconds: Gauge,
    pub key_expiry: Gauge,
    pub rotation_overlap_end: Gauge,
    pub signer_errors: IntCounterVec,
    pub sign_latency: HistogramVec,
    pub sign_requests: IntCounterVec,
    pub merkle_batch_size: Histogram,
    pub key_rotations: IntCounter,
    pub nonce_created: IntCounter,
    pub nonce_used: IntCounter,
    pub nonce_rejected: IntCounterVec,
    pub nonce_expired: IntCounter,
    pub nonce_replays: IntCounter,
    pub nonce_store_size: IntGauge,
    pub nonce_store_fill: GaugeVec,
    pub nonce_store_clock_ahead: Gauge,
    pub nonce_validate_latency: Histogram,
    pub ratelimit_checks: IntCounterVec,
    pub ratelimit_blocked: IntCounterVec,
    pub ratelimit_bans: IntCounterVec,
    pub abuse_score: GaugeVec,
    pub audit_events: IntCounterVec,
    pub audit_flush_latency: Histogram,
    pub audit_free_bytes: Gauge,
    pub audit_checkpoint_size: IntGauge,
    pub audit_checkpoint_age: Gauge,
    pub audit_copies_dropped: IntCounterVec,
    pub service_health: GaugeVec,
    pub tls_expiry: GaugeVec,
    pub maintenance: IntGauge,
    pub token_process_restarts: IntCounter,
    pub token_signs: IntGaugeVec,
    pub token_ready: IntGaugeVec,
    pub token_switches: IntCounterVec,
    pub standby_signs: IntGauge,
    pub standbys_unready: IntGauge,
    pub access_denied: IntCounter,
    pub approvals: IntCounterVec,
    pub break_glass: IntCounterVec,
}

impl Metrics {
    /// Registers everything; fails only when a name is taken, which is a programming error.
    #[expect(clippy::too_many_lines, reason = "a line or two for each metric")]
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        make.build_info()?;
        // The collector of the process itself (CPU, memory, descriptors) has fixed names.
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            active_keys: make.int_gauge("signer_active_keys", "Keys that may sign now")?,
            key_age_seconds: make.gauge("signer_key_age_seconds", "Seconds since the active key was activated")?,
            key_expiry: make.gauge(
                "signer_key_expiry_timestamp_seconds",
                "Unix time at which the active key stops signing, 0 when no key is active",
            )?,
            rotation_overlap_end: make.gauge(
                "signer_rotation_overlap_end_timestamp_seconds",
                "Unix time at which the overlap of the open rotation ends, 0 when none is open",
            )?,
            signer_errors: make.counters("signer_errors_total", "Failures while signing", &["error_type"])?,
            sign_latency: make.histograms(
                "signer_sign_latency_seconds",
                "Time to answer a signing request",
                &["attestation_type"],
            )?,
            sign_requests: make.counters(
                "signer_sign_requests_total",
                "Signing requests",
                &["attestation_type", "status"],
            )?,
            merkle_batch_size: make.histogram_of(
                "signer_merkle_batch_size",
                "Attestations under one signature over a Merkle root",
                &SIZE_BUCKETS,
            )?,
            key_rotations: make.counter("signer_key_rotations_total", "Key rotations begun")?,
            nonce_created: make.counter("nonce_created_total", "Nonces issued")?,
            nonce_used: make.counter("nonce_used_total", "Nonces spent")?,
            nonce_rejected: make.counters("nonce_rejected_total", "Nonces refused", &["reason"])?,
            nonce_expired: make.counter("nonce_expired_total", "Nonces that expired unspent")?,
            nonce_replays: make.counter("nonce_replays_total", "Nonces that one client spent and another presented")?,
            nonce_store_size: make.int_gauge("nonce_store_size", "Nonces in the store, spent ones included")?,
            nonce_store_fill: make.gauges(
                "nonce_store_fill",
                "Share used of a bound on nonces: capacity, largest_issuer, memory",
                &["of"],
            )?,
            nonce_store_clock_ahead: make.gauge(
                "nonce_store_clock_ahead_seconds",
                "Seconds that the clock of Redis is ahead of this machine's",
            )?,
            nonce_validate_latency: make.histogram("nonce_validate_latency_seconds", "Time to spend a nonce")?,
            ratelimit_checks: make.counters("ratelimit_checks_total", "Looks at a limit", &["limit_type", "result"])?,
            ratelimit_blocked: make.counters(
                "ratelimit_blocked_total",
                "Requests turned away by a limit or a block",
                &["limit_type", "reason"],
            )?,
            ratelimit_bans: make.counters("ratelimit_bans_total", "Blocks begun", &["reason"])?,
            abuse_score: make.gauges("abuse_score", "The highest score of each kind of principal", &["kind"])?,
            audit_events: make.counters("audit_events_total", "Audit records written", &["event_type", "severity"])?,
            audit_flush_latency: make
                .histogram("audit_flush_latency_seconds", "Time to put a batch of records on disk")?,
            audit_free_bytes: make.gauge("audit_free_bytes", "Bytes free on the disk of the audit trail")?,
            audit_checkpoint_size: make
                .int_gauge("audit_checkpoint_size", "Records that the last signed checkpoint covers")?,
            audit_checkpoint_age: make.gauge(
                "audit_checkpoint_age_seconds",
                "Seconds since the last signed checkpoint while records wait for one, else 0",
            )?,
            audit_copies_dropped: make.counters(
                "audit_copies_dropped_total",
                "Audit records of which a receiver got no copy",
                &["receiver"],
            )?,
            service_health: make.gauges("service_health", "1 when the dependency is usable, else 0", &["service"])?,
            tls_expiry: make.gauges(
                "tls_expiry_timestamp_seconds",
                "Unix time at which a file of [tls] stops being good: server_certificate, client_ca, client_crl",
                &["of"],
            )?,
            maintenance: make.int_gauge("maintenance", "1 while an operator has this appliance out of service")?,
            token_process_restarts: make.counter(
                "token_process_restarts_total",
                "Times that the process which holds the PKCS#11 module ended unasked and another was started",
            )?,
            token_signs: make.int_gauges(
                "token_signs",
                "1 for the token that is asked first for signatures, where there are standbys",
                &["token"],
            )?,
            token_ready: make.int_gauges(
                "token_ready",
                "1 when the token could sign with the active key, where there are standbys",
                &["token"],
            )?,
            token_switches: make.counters("token_switches_total", "Changes to this token for signatures", &["to"])?,
            standby_signs: make.int_gauge("standby_signs", "1 while a standby signs in the primary token's place")?,
            standbys_unready: make
                .int_gauge("standbys_unready", "Standby tokens that could not sign with the active key now")?,
            access_denied: make.counter("access_denied_total", "Requests that were denied for who made them")?,
            approvals: make.counters("approvals_total", "Steps of approval requests", &["operation", "step"])?,
            break_glass: make.counters(
                "break_glass_total",
                "Changes of keys by one person alone that needed the approval of others",
                &["operation"],
            )?,
            registry,
        })
    }

    /// The text exposition format, version 0.0.4.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    /// Which program this is, and since when it runs: the collector of the process cannot tell in a sandbox
    /// that hides /proc/stat.
    fn build_info(&self) -> Result<(), prometheus::Error> {
        let info = self.int_gauges("build_info", "1, with the version of the program", &["version"])?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.gauge("start_time_seconds", "Unix time at which the service started")?.set(started.as_secs_f64());
        Ok(())
    }

    fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?)
    }

    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn int_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(Opts::new(name, help).namespace(NAMESPACE))?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::with_opts(Opts::new(name, help).namespace(NAMESPACE))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(Opts::new(name, help).namespace(NAMESPACE))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help).namespace(NAMESPACE), labels)?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        self.histogram_of(name, help, &LATENCY_BUCKETS)
    }

    fn histogram_of(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts)?)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(LATENCY_BUCKETS.to_vec());
        self.register(HistogramVec::new(opts, labels)?)
    }
}
