#!/usr/bin/env bash
# Installs the Debian packages that the demo or the tests need, when they are missing.
# As root through apt; otherwise it prints the command and stops.
set -euo pipefail

demo=(softhsm2 opensc openssl curl jq ca-certificates)
tests=("${demo[@]}" redis-server redis-sentinel redis-tools procps strace gcc libc6-dev p11-kit p11-kit-modules)
case "${1:?demo or tests}" in
  demo) wanted=("${demo[@]}") ;;
  tests) wanted=("${tests[@]}") ;;
  *) echo "usage: $0 demo|tests" >&2; exit 64 ;;
esac

# schemathesis, from PyPI, in a virtual environment of this directory.
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
  [ -x "$venv/bin/st" ] && return 0
  echo "installing: schemathesis"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet 'schemathesis==4.32.5'
}
if [ ${#missing[@]} -eq 0 ]; then
  [ "$1" = demo ] || schemathesis
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
fi
