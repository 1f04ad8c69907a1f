#!/bin/bash
# Install the Debian packages that Argosy needs: only what is missing, at once done when nothing is.
#
#   system-packages.sh [GROUP...]      groups: run (default), venv, test, vm
#
# run:  what a host that runs controller or agent needs
# venv: what building the Python environment needs
# test: what the tests need beside that
# vm:   what `make test-vm` needs (an emulator, and what makes its disk)
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

declare -A GROUPS_OF=(
    [run]="nftables libnftables1 libseccomp2 iproute2 wireguard-go busybox-static tini ca-certificates debian-archive-keyring"
    [venv]="python3 python3-venv"
    [test]="debootstrap procps util-linux skopeo umoci zstd"
    [vm]="qemu-system-x86 e2fsprogs util-linux"
)

wanted=()
for group in "${@:-run}"; do
    [ -n "${GROUPS_OF[$group]:-}" ] || fail "no group '$group'; there are: ${!GROUPS_OF[*]}"
    read -ra names <<<"${GROUPS_OF[$group]}"
    wanted+=("${names[@]}")
done

need_debian
# dpkg-query's status is 1 when it does not know one of the names; its list then still holds the others.
states=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' "${wanted[@]}" 2>/dev/null || true)
installed=" $(sed -n 's/^.i *//p' <<<"$states" | tr '\n' ' ') "
missing=()
for name in "${wanted[@]}"; do
    [[ $installed == *" $name "* ]] || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0

need_root "install ${missing[*]}"
say "installing ${missing[*]}"
# An update that fails for one foreign source must not stop the install: what is missing then shows below.
apt update >&2 || say "apt-get update reported errors (above); going on with the package lists there are"
apt install -y --no-install-recommends "${missing[@]}" >&2 ||
    fail "could not install: ${missing[*]}. Look at apt-get's message above (network? package sources? a full disk?) and run this again."
