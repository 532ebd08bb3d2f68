#!/usr/bin/env bash
# The package in a fresh Debian of its own, booted with systemd in systemd-nspawn: installed, set up, crashed,
# upgraded, removed and purged. As root. Packages come from wherever this machine's own come from. The machine
# has no network but its own loopback.
#   ROOT_TAR=FILE  keeps the Debian root for the next run
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" -eq 0 ] || { echo "run it as root: it boots a machine" >&2; exit 1; }

work=$(mktemp -d)
root=$work/root
nspawn=
clean() {
  [ -z "$nspawn" ] || { kill -KILL "$leader" 2> /dev/null || true; wait "$nspawn" 2> /dev/null || true; }
  rm -rf "$work"
}
trap clean EXIT

say() { echo "== $*"; }
fail() {
  echo "FAILED: $*" >&2
  [ -z "$nspawn" ] || inside journalctl --no-pager -n 60 -u verification-signer >&2 || true
  exit 1
}
expect() { # what, expected, found
  [ "$2" = "$3" ] || fail "$1: expected $2, found $3"
  echo "ok: $1: $3"
}
inside() { nsenter -t "$leader" -m -u -i -n -p -- "$@"; }
eventually() { # what, command…: asks again until it succeeds
  local what=$1 end=$((SECONDS + 120))
  shift
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "never happened: $what"
    sleep 0.1
  done
  echo "ok: $what"
}
show() { inside systemctl show --value -p "$1" verification-signer; }
api() { inside curl -s --fail-with-body "$@"; }
ready() { [ "$(api http://127.0.0.1:8080/readyz | jq -r .ready)" = true ]; }
restarted() { [ "$(show MainPID)" != "$1" ] && [ "$(show ActiveState)" = active ] && ready; }
sign() {
  local nonce
  nonce=$(api -X POST http://127.0.0.1:8080/api/v1/nonces -H 'Content-Type: application/json' \
    -d '{"attestation_type":"email_verification"}' | jq -r .nonce)
  api -X POST http://127.0.0.1:8080/api/v1/attestations -H 'Content-Type: application/json' \
    -d '{"type":"email_verification","subject":{"account_address":"virtengine1qyfe"},"nonce":"'"$nonce"'","validity_seconds":3600,"score":91,"confidence":88}' \
    > "$work/attestation.json"
  api -X POST http://127.0.0.1:8080/api/v1/attestations/verify -H 'Content-Type: application/json' \
    -d "$(cat "$work/attestation.json")" | jq -r .valid
}
fingerprint() { api http://127.0.0.1:8080/api/v1/keys/active | jq -r '[.key_id, .fingerprint] | join(" ")'; }
fields() { sed -n "s/^$2:[[:space:]]*//p" "$root/proc-status-$1"; }

say "the package of this version, and one of an older version number"
new=$(ls -t target/debian/verification-signer_*.deb | head -n 1)
old=$work/verification-signer_0.0.9-1.deb
dpkg-deb -R "$new" "$work/unpacked"
sed -i 's/^Version: .*/Version: 0.0.9-1/' "$work/unpacked/DEBIAN/control"
dpkg-deb --root-owner-group -Znone -b "$work/unpacked" "$old" > /dev/null
lintian --allow-root --fail-on error,warning "$new"
echo "ok: lintian has no error and no warning"

say "a fresh Debian"
tar=${ROOT_TAR:-$work/root.tar}
if [ ! -s "$tar" ]; then
  sources=/etc/apt/sources.list
  [ ! -s /etc/apt/sources.list.d/debian.sources ] || sources=/etc/apt/sources.list.d/debian.sources
  mmdebstrap --quiet --variant=minbase \
    --include=systemd,systemd-sysv,dbus,procps,curl,jq,openssl,ca-certificates,softhsm2,opensc \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$tar" "$sources"
fi
mkdir "$root"
tar -C "$root" --numeric-owner --xattrs -xpf "$tar"
cp "$new" "$root/root/new.deb"
cp "$old" "$root/root/old.deb"

say "boot"
systemd-nspawn --quiet --register=no --keep-unit --settings=no --private-network --console=pipe -D "$root" -b \
  > "$work/console" 2>&1 &
nspawn=$!
leader=
for _ in $(seq 600); do
  leader=$(pgrep -P "$nspawn" || true)
  [ -z "$leader" ] || [ ! -S "$root/run/systemd/private" ] && ! inside true 2> /dev/null || break
  kill -0 "$nspawn" 2> /dev/null || { cat "$work/console" >&2; fail "the machine did not boot"; }
  sleep 0.1
done
booted() { case "$(inside systemctl is-system-running 2> /dev/null)" in running | degraded) true ;; *) false ;; esac; }
eventually "systemd is up" booted

say "installation"
inside dpkg -i /root/old.deb
expect "the unit is enabled" enabled "$(inside systemctl is-enabled verification-signer)"
inside systemctl start verification-signer
expect "it does not start before it is set up" inactive "$(show ActiveState)"
expect "its directory" "750 root verification-signer" "$(inside stat -c '%a %U %G' /etc/verification-signer)"
inside man -w verification-signer > /dev/null 2>&1 || inside test -s /usr/share/man/man1/verification-signer.1.gz
inside systemd-analyze verify --recursive-errors=yes --man=no verification-signer.service
echo "ok: systemd-analyze verify"

say "set-up"
inside verification-signer init --profile softhsm2 --signer-id veid-signer-1 --make-token --pin-store encrypted
expect "files of the token are the service's" verification-signer "$(inside sh -c 'stat -c %U /var/lib/verification-signer/tokens/*/token.object')"
inside systemctl start verification-signer
expect "it runs" "active running" "$(show ActiveState) $(show SubState)"
expect "it says so itself" serving "$(show StatusText)"

say "the sandbox"
pid=$(show MainPID)
inside cat "/proc/$pid/status" > "$root/proc-status-$pid"
expect "capabilities" 0000000000000000 "$(fields "$pid" CapEff)"
expect "no new privileges" 1 "$(fields "$pid" NoNewPrivs)"
expect "system calls are filtered" 2 "$(fields "$pid" Seccomp)"
expect "its user" verification-signer "$(inside ps -o user:32= -p "$pid" | tr -d ' ')"
expect "the PIN is on a file system of its own, for it alone" 400 "$(inside nsenter -t "$pid" -m stat -c %a /run/credentials/verification-signer.service/hsm-pin)"
! inside nsenter -t "$pid" -m touch /usr/marker 2> /dev/null || fail "/usr is writable"
echo "ok: $(inside systemd-analyze security --no-pager verification-signer.service | tail -n 1)"

say "it signs"
expect "an attestation that verifies" true "$(sign)"
key=$(fingerprint)
echo "key: $key"

say "SIGUSR1 closes the audit file"
closed() { inside sh -c 'ls /var/log/virtengine/audit/audit.log.*Z-*[0-9]' | wc -l; }
before=$(closed 2> /dev/null || true)
inside systemctl kill --kill-whom=main -s USR1 verification-signer
grown() { [ "$(closed)" -gt "$before" ]; }
eventually "one more closed file" grown
expect "the same process" "$pid" "$(show MainPID)"

say "a reload"
inside systemctl reload verification-signer
serving() { [ "$(show StatusText)" = serving ] && ready; }
eventually "serving again" serving
expect "the same process" "$pid" "$(show MainPID)"

say "a crash"
inside kill -KILL "$pid"
eventually "another process serves" restarted "$pid"
expect "restarts" 1 "$(show NRestarts)"
expect "an attestation that verifies" true "$(sign)"
expect "the same key" "$key" "$(fingerprint)"

say "the watchdog"
inside mkdir -p /run/systemd/system/verification-signer.service.d
printf '[Service]\nWatchdogSec=4s\n' | inside tee /run/systemd/system/verification-signer.service.d/watchdog.conf > /dev/null
inside systemctl daemon-reload
inside systemctl restart verification-signer
pid=$(show MainPID)
inside kill -STOP "$pid"
eventually "another process serves" restarted "$pid"
inside journalctl --no-pager -u verification-signer | grep -q 'Watchdog timeout' || fail "it was not the watchdog"
expect "an attestation that verifies" true "$(sign)"
inside rm /run/systemd/system/verification-signer.service.d/watchdog.conf
inside systemctl daemon-reload

say "the upgrade"
pid=$(show MainPID)
configuration=$(inside sha256sum /etc/verification-signer/config.toml)
inside dpkg -i /root/new.deb
eventually "the new version serves" restarted "$pid"
expect "the configuration is what it was" "$configuration" "$(inside sha256sum /etc/verification-signer/config.toml)"
expect "the same key" "$key" "$(fingerprint)"
expect "an attestation that verifies" true "$(sign)"

say "the runbook, every command"
awk '/^```sh$/ {on = 1; next} /^```/ {on = 0} on' RUNBOOK.md > "$root/root/runbook.sh"
inside bash -euo pipefail -x /root/runbook.sh > "$work/runbook.out" 2> "$work/runbook.err" \
  || { tail -n 40 "$work/runbook.out" "$work/runbook.err" >&2; fail "a command of RUNBOOK.md failed"; }
echo "ok: $(grep -c '^+ ' "$work/runbook.err") commands"
inside verification-signer audit verify /var/log/virtengine/audit

say "a wrong PIN"
key=$(fingerprint)
printf 'wrong-pin-000' | inside sh -c 'umask 077; cat > /root/wrong-pin'
printf '[Service]\nLoadCredential=\nLoadCredentialEncrypted=\nLoadCredential=hsm-pin:/root/wrong-pin\n' \
  | inside tee /run/systemd/system/verification-signer.service.d/wrong.conf > /dev/null
inside systemctl daemon-reload
! inside systemctl restart verification-signer 2> /dev/null || fail "it started with a wrong PIN"
expect "how it ended" 78 "$(show ExecMainStatus)"
expect "it is not started again" "failed failed 0" "$(show ActiveState) $(show SubState) $(show NRestarts)"
expect "tries" 1 "$(inside journalctl --no-pager -u verification-signer | grep -c 'is wrong: it was tried once')"
inside rm /run/systemd/system/verification-signer.service.d/wrong.conf
inside systemctl daemon-reload
inside systemctl restart verification-signer
expect "with the right PIN, the same key" "$key" "$(fingerprint)"

say "removal"
inside dpkg -r verification-signer
for path in /etc/verification-signer/config.toml /var/log/virtengine/audit/audit.log /var/lib/verification-signer/ledger-seen.json; do
  inside test -e "$path" || fail "removal took $path"
done
! inside pidof verification-signer > /dev/null || fail "it still runs"
inside dpkg -i /root/new.deb
inside systemctl start verification-signer
expect "installed again, the same key" "$key" "$(fingerprint)"

say "purge"
inside dpkg -P verification-signer
for path in /etc/verification-signer/config.toml /var/log/virtengine/audit /var/lib/verification-signer/ledger-seen.json; do
  ! inside test -e "$path" || fail "purging left $path"
done
inside sh -c 'SOFTHSM2_CONF=/root/softhsm2.conf; export SOFTHSM2_CONF
  echo "directories.tokendir = /var/lib/verification-signer/tokens" > $SOFTHSM2_CONF
  PIN=$(systemd-creds decrypt --name=hsm-pin /etc/credstore.encrypted/verification-signer.hsm-pin -); export PIN
  pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --token-label verification-signer --login --pin env:PIN --list-objects --type privkey' \
  > "$work/objects"
grep -q "label: *${key%% *} " "$work/objects" || { cat "$work/objects" >&2; fail "the key is not on the token any more"; }
echo "ok: the token and its PIN are still there, and the key in it"
echo "machine: ok"
