#!/bin/bash
# Fetch Debian's stock cloud kernel into .cache/vm/kernel (nothing is installed) and print that folder's path.
#
# The folder then holds boot/vmlinuz-RELEASE and lib/modules/RELEASE with the index that modprobe reads.
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
. "$repo/deploy/install/lib.sh"

kernel=$repo/.cache/vm/kernel
if [ ! -d "$kernel" ]; then
    need_debian
    # The meta package names the current kernel, as in: Depends: linux-image-6.1.0-56-cloud-amd64
    newest() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1; }
    package=$(newest)
    if [ -z "$package" ]; then
        need_root "read Debian's package lists"
        apt update >&2 || true
        package=$(newest)
    fi
    [ -n "$package" ] || fail "apt knows no linux-image-cloud-amd64: are Debian's package sources there, and is this an amd64 host?"

    mkdir -p "$repo/.cache/vm"
    work=$(mktemp -d "$repo/.cache/vm/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/root"
    say "fetching $package"
    (cd "$work" && apt -o APT::Sandbox::User=root download "$package" >&2) || {
        # The lists may be older than the archive.
        [ "$(id -u)" -ne 0 ] || apt update >&2 || true
        package=$(newest)
        (cd "$work" && apt -o APT::Sandbox::User=root download "$package" >&2) ||
            fail "could not download $package; apt-get's message is above"
    }
    dpkg -x "$work"/*.deb "$work/root"
    release=$(ls "$work/root/lib/modules")
    busybox depmod -b "$work/root" "$release"
    chmod 755 "$work/root"
    mv "$work/root" "$kernel"
fi
echo "$kernel"
