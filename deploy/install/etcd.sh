#!/bin/bash
# Put a current etcd 3.5 under PREFIX (default /opt/argosy/etcd) and print the path of its binary.
#
#   etcd.sh [PREFIX]       ends with PREFIX/bin/etcd, PREFIX/bin/etcdctl, PREFIX/bin/etcdutl
#
# Debian 12's own package is 3.4.23: past its end of life, with watch and lease bugs that were fixed since.
# Debian 13's 3.5 packages run on Debian 12 as they are, so they are fetched from the mirror that this
# host's package sources already name, checked against Debian's archive keys, and unpacked: not installed.
# The host's package sources, lists and dpkg's state are left as they are.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

SUITE=trixie
SERIES=3.5
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
prefix=${1:-/opt/argosy/etcd}

# works BINARY: true when it runs and is of the series.
works() { [ -x "$1" ] && [[ "$("$1" --version 2>/dev/null | head -n 1)" == "etcd Version: $SERIES."* ]]; }

if works "$prefix/bin/etcd"; then
    echo "$prefix/bin/etcd"
    exit 0
fi

need_debian
parent=$(dirname "$prefix")
mkdir -p "$parent" 2>/dev/null && [ -w "$parent" ] ||
    fail "cannot write to $parent. Run this as root, or give a prefix that you may write to: ${0##*/} ~/.local/lib/argosy/etcd"
[ -r "$KEYRING" ] || fail "$KEYRING is missing: install the package debian-archive-keyring (system-packages.sh does)"

mirror=$(debian_mirror)

work=$(mktemp -d "$parent/.etcd-fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,parts,debs,root}
echo "deb [signed-by=$KEYRING] $mirror $SUITE main" >"$work/sources.list"
# apt's fetchers drop to the user _apt; they must be able to write here.
if [ "$(id -u)" -eq 0 ] && id _apt >/dev/null 2>&1; then
    chown _apt "$work" "$work/debs" "$work/lists/partial" "$work/cache/archives/partial"
    chmod 755 "$work"
fi
private=(
    -o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts"
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache"
    -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache="
    -o "APT::Get::List-Cleanup=false" -o "Acquire::Languages=none" -o "Debug::NoLocking=1"
)

say "fetching etcd $SERIES from Debian's $SUITE into $prefix"
apt "${private[@]}" update >&2 || fail "could not read Debian's $SUITE lists (apt-get's message is above): is the network there?"
(cd "$work/debs" && apt "${private[@]}" download "etcd-server/$SUITE" "etcd-client/$SUITE" >&2) ||
    fail "could not download etcd-server and etcd-client of $SUITE; apt-get's message is above"
for deb in "$work"/debs/*.deb; do
    dpkg -x "$deb" "$work/root"
done

mkdir "$work/root/bin"
for program in etcd etcdctl etcdutl; do
    [ -x "$work/root/usr/bin/$program" ] && ln -s "../usr/bin/$program" "$work/root/bin/$program"
done
works "$work/root/bin/etcd" || fail "the fetched etcd does not run here, or is not $SERIES: $("$work/root/bin/etcd" --version 2>&1 | head -n 1)"

# Old and new are swapped by two renames, so that a stop in between never leaves half a prefix.
chmod 755 "$work/root"
[ ! -e "$prefix" ] || mv "$prefix" "$work/replaced"
mv "$work/root" "$prefix"
"$prefix/bin/etcd" --version | head -n 1 >&2
echo "$prefix/bin/etcd"
