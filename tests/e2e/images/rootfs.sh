#!/bin/bash
# Make a small root file system of Debian with nginx, redis and python3:  rootfs.sh FILE.tar
#
# Needs root and the network the first time; the packages come from the archive that this host's own package sources
# name. Nothing of the host is changed. The file appears whole or not at all.
set -euo pipefail
cd "$(dirname "$0")"
. ../../../deploy/install/lib.sh

SUITE=bookworm
PACKAGES=nginx-light,redis-server,python3
# What a container needs none of: documents, other languages and time zones, and what only packages' scripts use.
LEAVE_OUT=(
    './dev/*' './proc/*' './run/*' './sys/*' './tmp/*' './var/cache/*/*' './var/lib/apt/lists/*' './var/lib/dpkg/info/*'
    './usr/share/doc/*' './usr/share/man/*' './usr/share/locale/*' './usr/share/zoneinfo/*' './usr/bin/perl*'
    './usr/lib/*/perl*' './usr/lib/*/gconv/*' './usr/lib/python3*/pydoc_data/*'
)

out=$(realpath -m "${1:?usage: rootfs.sh FILE.tar}")
need_debian
need_root "make a root file system with debootstrap"
command -v debootstrap >/dev/null || fail "debootstrap is missing: run deploy/install/system-packages.sh test"
mirror=$(debian_mirror)

mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$out")/.rootfs.XXXXXX")
# Stopped in between, debootstrap leaves its mounts.
clean() {
    umount -l "$work"/root/{proc,sys,dev/pts,dev} 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

say "making a root file system of Debian $SUITE with $PACKAGES (a minute, the first time)"
debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$work/root" "$mirror" >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    fail "debootstrap failed; the end of what it said is above (is the network there?)"
}
tar --numeric-owner --one-file-system --sort=name "${LEAVE_OUT[@]/#/--exclude=}" -C "$work/root" -cf "$work/rootfs.tar" .
mv "$work/rootfs.tar" "$out"
