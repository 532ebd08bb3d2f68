# Two commands to try it: make demo, make test.
.PHONY: demo test test-long test-appliance bench bench-merkle bench-scale bench-trail soak lint deb

demo:
	@softhsm-tests/install-tools.sh demo
	@cargo build --release --locked
	@softhsm-tests/demo.sh target/release/verification-signer

test:
	@softhsm-tests/install-tools.sh tests
	@cargo test --locked
	@echo "test: ok (every test passed)"

# Sweeps and soaks that take too long for every run.
test-long:
	@softhsm-tests/install-tools.sh tests
	@cargo test --locked --no-fail-fast -- --include-ignored
	@echo "test-long: ok (every test passed)"

# Attestations a second and CPU an attestation, as ratios to the bare C_Sign loop of the same run.
bench:
	@softhsm-tests/install-tools.sh tests
	@cargo bench --locked --bench throughput

# Slow tokens: one by one, single requests that share signatures, and batches. Each result is verified.
bench-merkle:
	@softhsm-tests/install-tools.sh tests
	@cargo bench --locked --bench merkle

# What there is much of: keys, nonces, records, connections; memory, the start, latency at half load. Only some:
# make bench-scale PARTS="keys start"; parts: keys own-keys nonces redis records connections memory start half-load
# half-load-redis. BENCH_RECORDS (1 000 000) in the trail.
bench-scale:
	@softhsm-tests/install-tools.sh tests
	@cargo bench --locked --bench scale -- $(PARTS)

# SOAK_SECONDS (3 600) of half load: memory, descriptors and threads stay as they are.
soak:
	@softhsm-tests/install-tools.sh tests
	@cargo bench --locked --bench soak

# What the audit trail costs a signature, and how it bears BENCH_RECORDS records.
bench-trail:
	@cargo bench --locked --bench trail

lint:
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets -- --deny warnings

# The Debian package, in target/debian. Times inside it are those of the last commit, so that the same
# sources give the same package.
CARGO_DEB = 3.8.0
deb:
	@cargo deb --version 2>/dev/null | grep -qwF $(CARGO_DEB) || cargo install --locked --quiet cargo-deb@$(CARGO_DEB)
	@cargo run --locked --quiet --example documents -- target/documents
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 1) cargo deb --locked $(DEB_FLAGS)

# The package in a fresh Debian with a systemd of its own: installed, set up, crashed, upgraded, purged. As root.
test-appliance: deb
	@softhsm-tests/install-tools.sh appliance
	@softhsm-tests/appliance/machine.sh
