#!/bin/bash
# Make this host a controller, a node that runs containers, or both, from this checkout, under systemd.
#
#   host.sh agent|controller...        for example: host.sh controller agent
#
# Installs into /opt/argosy, /etc/argosy (files there are kept), /etc/sysctl.d and /etc/systemd/system. Nothing is started:
# what is in /etc/argosy is to be looked at first. Running it again upgrades; running containers are not touched.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
repo=$(cd "$here/../.." && pwd)

[ $# -gt 0 ] || fail "say what this host is to be: ${0##*/} agent, ${0##*/} controller, or both words"
for role in "$@"; do
    [ -f "$repo/deploy/systemd/argosy-$role.service" ] && [ "$role" != etcd ] ||
        fail "no such role '$role': there are agent and controller"
done
need_root "install Argosy on this host"
"$here/system-packages.sh" run venv

python=$(command -v python3)
[ -x /opt/argosy/venv/bin/python ] || "$python" -m venv /opt/argosy/venv
say "installing Argosy into /opt/argosy/venv"
/opt/argosy/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --upgrade "$repo" ||
    fail "pip could not install Argosy (its message is above): is the network, or your package index, there?"

install -d -m 755 /etc/argosy
for role in "$@"; do
    [ "$role" != controller ] || {
        "$here/etcd.sh" >/dev/null
        install -m 644 "$repo/deploy/systemd/argosy-etcd.service" /etc/systemd/system/
        [ -e /etc/argosy/secrets.key ] || (umask 077 && head -c 32 /dev/urandom | base64 >/etc/argosy/secrets.key)
    }
    [ "$role" != agent ] || {
        install -m 644 "$repo/deploy/systemd/argosy-guard.service" /etc/systemd/system/
        install -D -m 644 "$repo/deploy/etc/sysctl.conf" /etc/sysctl.d/60-argosy.conf
        sysctl --quiet --load=/etc/sysctl.d/60-argosy.conf || say "sysctl: see /etc/sysctl.d/60-argosy.conf, and set it"
    }
    [ -e "/etc/argosy/$role.env" ] || install -m 644 "$repo/deploy/etc/$role.env" /etc/argosy/
    install -m 644 "$repo/deploy/systemd/argosy-$role.service" /etc/systemd/system/
done
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    say "done. Look at /etc/argosy, then: systemctl enable --now$(printf ' argosy-%s' "${@/controller/etcd argosy-controller}")"
else
    say "done, but systemd does not run here: start the commands in /etc/systemd/system/argosy-*.service by other means"
fi
