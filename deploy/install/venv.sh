#!/bin/bash
# Make or bring up to date the Python environment .venv of this checkout, with Argosy installed editable in it.
#
#   venv.sh [PYTHON]       PYTHON: the interpreter to make it with (default python3), 3.11 or newer
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
cd "$here/../.."
python=${1:-python3}

command -v "$python" >/dev/null || "$here/system-packages.sh" venv
command -v "$python" >/dev/null || fail "there is no '$python'. Install Python 3.11 or newer, or name one: make venv PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: Argosy needs Python 3.11 or newer. Name another: make venv PYTHON=/path/to/python3"

if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    # Debian splits venv off into its own package.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || "$here/system-packages.sh" venv
    "$python" -m venv --clear .venv || fail "could not make .venv with $python (its message is above)"
fi

say "installing Argosy and what it needs into .venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --editable '.[dev]' ||
    fail "pip could not install Argosy's requirements (its message is above): is the network, or your package index, there?"
