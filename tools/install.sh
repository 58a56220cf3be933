#!/usr/bin/env bash
# Makes .venv and installs what requirements.lock pins, by hash. Says what it does; run again, it
# does nothing while the lock stands unchanged.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-}
if [ -z "$python" ]; then
  for name in python3.11 python3.12 python3.13 python3; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      python=$name
      break
    fi
  done
fi
[ -n "$python" ] || { echo "checkrein needs Python 3.11 or newer; none was found on PATH" >&2; exit 1; }

# Debian and Ubuntu ship venv apart from Python itself.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "installing Debian package python$version-venv"
    apt-get update -qq && apt-get install -y -qq "python$version-venv"
  else
    echo "Python's venv module is missing: install the package python3-venv, then run make again" >&2
    exit 1
  fi
fi

[ -x .venv/bin/python ] || { echo "making .venv with $("$python" --version)"; "$python" -m venv .venv; }
echo "installing $(grep -c '==' requirements.lock) locked packages into .venv (a few minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
touch .venv/.installed
echo "installed"
