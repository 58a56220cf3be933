#!/usr/bin/env bash
# Compiles requirements.lock: every dependency pinned with hashes, no download address.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m pip install --quiet uv
.venv/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate \
  --python-version 3.11 --extra server --extra demo --group check \
  pyproject.toml -o requirements.lock
