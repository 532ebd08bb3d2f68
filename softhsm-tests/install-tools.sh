#!/usr/bin/env bash
# Installs the Debian packages that the demo, the tests or the test of the package need, when they are missing.
# As root through apt; otherwise it prints the command and stops.
set -euo pipefail

demo=(softhsm2 opensc openssl curl jq ca-certificates)
tests=("${demo[@]}" redis-server redis-sentinel redis-tools procps strace gcc libc6-dev systemd e2fsprogs prometheus)
# Other PKCS#11 modules: p11-kit's remoting; tpm2-pkcs11 with a simulated TPM and its resource manager;
# openCryptoki; and what Kryoptic is built with.
tests+=(p11-kit p11-kit-modules)
tests+=(libtpm2-pkcs11-1 libtpm2-pkcs11-tools libtss2-tcti-tabrmd0 swtpm tpm2-abrmd tpm2-tools dbus-daemon util-linux)
tests+=(opencryptoki libclang1 libsqlite3-dev libssl-dev pkg-config)
# The browser of the console's tests.
tests+=(chromium chromium-driver)
appliance=(mmdebstrap systemd-container lintian)
case "${1:?demo, tests or appliance}" in
  demo) wanted=("${demo[@]}") ;;
  appliance) wanted=("${appliance[@]}") ;;
  tests) wanted=("${tests[@]}") ;;
  *) echo "usage: $0 demo|tests|appliance" >&2; exit 64 ;;
esac

# schemathesis, and what the second verifier of attestations is written with, from PyPI, in a virtual
# environment of this directory.
if [ "$1" = tests ]; then
  wanted+=(python3 python3-venv)
fi

missing=()
for package in "${wanted[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
schemathesis() {
  local venv
  venv="$(dirname "$0")/../target/venv"
  [ -x "$venv/bin/st" ] && "$venv/bin/python3" -c 'import cryptography' 2> /dev/null && return 0
  echo "installing: schemathesis, cryptography"
  python3 -m venv "$venv"
  "$venv/bin/python3" -m pip install --quiet 'schemathesis==4.32.5' 'cryptography==50.0.2'
}
# Kryoptic, from the package registry: it is loaded by tests, and no part of the product.
kryoptic() {
  local place version=1.5.4
  place="$(dirname "$0")/../target/kryoptic"
  [ -e "$place/debug/libkryoptic_pkcs11.so" ] && return 0
  echo "building: kryoptic"
  cargo info --quiet "kryoptic@$version" > /dev/null
  mkdir -p "$place"
  cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"kryoptic-$version" "$place/"
  # A package of its own: not of the workspace that it stands in.
  printf '\n[workspace]\n' >> "$place/kryoptic-$version/Cargo.toml"
  BINDGEN_EXTRA_CLANG_ARGS="-I$(gcc -print-file-name=include)" cargo build --quiet --locked \
    --manifest-path "$place/kryoptic-$version/Cargo.toml" --target-dir "$place" \
    --no-default-features --features minimal,kryoptic-lib/dynamic
}
if [ ${#missing[@]} -eq 0 ]; then
  [ "$1" != tests ] || { schemathesis; kryoptic; }
  exit 0
fi

if [ "$(id -u)" -ne 0 ]; then
  echo "Missing packages. Run this, then try again:" >&2
  echo "  sudo apt-get update && sudo apt-get install -y ${missing[*]}" >&2
  exit 1
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# A package that brings a service (redis) must not start it: the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
log=$(mktemp)
if ! { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
if [ "$1" = tests ]; then
  schemathesis
  kryoptic
fi
