# Two commands to try it: make demo, make test.
.PHONY: demo test test-long bench bench-trail lint

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

# What the audit trail costs a signature, and how it bears BENCH_RECORDS records.
bench-trail:
	@cargo bench --locked --bench trail

lint:
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets -- --deny warnings
