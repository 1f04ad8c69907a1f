#!/bin/bash
# The demo: three hosts on this machine, two services that call each other across them, scaling, an update, and a host
# that is lost and comes back. `make demo` installs what it needs and runs it. The cluster stays up afterwards.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
PATH="$project/.venv/bin:$PATH"
unset ARGOSY_HOST ARGOSY_CONTEXT
name=${ARGOSY_DEMO_NAME:-default}
[ "$name" = default ] || export ARGOSY_CONTEXT="dev/$name"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo; echo "Stopped. The cluster is still up: argosy dev down --name $name ends it."; exit 130' INT

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
run() { printf '   $ %s\n' "$*"; "$@" 2>&1 | sed 's/^/   /'; return "${PIPESTATUS[0]}"; }
wait_for() { # wait_for SECONDS WHAT COMMAND...: until the command succeeds
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "demo: waited in vain: $what" >&2; exit 1; }
        sleep 0.2
    done
}
# spread N NODE: N tasks of the api run, none of them on NODE ("" any).
spread() {
    argosy ps demo_api --format json | "$project/.venv/bin/python" -c '
import json, sys
wanted, avoid = int(sys.argv[1]), sys.argv[2]
tasks = [t for t in json.load(sys.stdin) if t["state"] == "RUNNING" and t["desired_state"] == "RUNNING"]
sys.exit(0 if len(tasks) == wanted and all(t["node"] != avoid for t in tasks) else 1)' "$1" "$2"
}
# (grep reads to the end: with -q it would close the pipe at the first match, and `argosy logs` fail for that.)
heard() { argosy logs --tail 6 demo_front | grep "$1"; }

began=$SECONDS
if argosy dev status --name "$name" >/dev/null 2>&1; then
    step "A dev cluster $name is up already: starting afresh"
    run argosy dev down --name "$name"
fi

step "Start a cluster: three hosts on this machine, each in namespaces of its own"
run argosy dev up --name "$name" --nodes 3
run argosy node ls

step "Import the image (a root file system of busybox and three scripts)"
for version in 1 2; do
    "$here/image.sh" "$version" >"$work/demo-$version.tar"
    run argosy image import "demo:$version" "$work/demo-$version.tar"
done

step "Deploy two services: front calls api by its name, wherever they run"
run argosy deploy -c "$here/compose.yaml" demo
run argosy ps
wait_for 20 "front hears api" heard "version 1"
run argosy logs --tail 3 demo_front

step "Scale api from 3 to 9 tasks"
run argosy scale demo_api=9
run argosy service ls

step "Roll out version 2, one task at a time, the new one before the old"
run argosy service update --image demo:2 demo_api
wait_for 20 "front hears version 2" heard "version 2"
run argosy logs --tail 3 demo_front

step "Lose a host: cut node3 off the network"
run argosy dev cut --name "$name" node3
cut=$(date +%s%N)
wait_for 30 "all tasks of api run on other hosts" spread 9 node3
echo "   All 9 tasks of api run on other hosts, $((($(date +%s%N) - cut) / 1000000)) ms after the cut."
run argosy node ls
run argosy ps demo_api

step "Bring it back: node3 stops what was replaced meanwhile"
run argosy dev heal --name "$name" node3
wait_for 30 "node3 is ready" sh -c "argosy node ls --format json | tr -d '\n ' | grep -q '\"name\":\"node3\"[^}]*\"state\":\"READY\"'"
run argosy node ls

flag=""
[ "$name" = default ] || flag=" --name $name"
step "Done in $((SECONDS - began)) seconds. The cluster is still up."
cat <<END
   Look around:   .venv/bin/argosy ps          .venv/bin/argosy service inspect demo_api
                  .venv/bin/argosy logs -f demo_front
   Take it down:  .venv/bin/argosy dev down$flag
END
