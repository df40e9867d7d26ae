#!/usr/bin/env bash
# The whole robustness run on a built program: 2,000 requests by badly behaved clients and 1,000 idle
# connections (about 20 s).    robustness.sh [FOLDER_OF_BISE]     default: build/dev
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 tests/server/robustness_test.py "${1:-build/dev}/bise" tests/golden 2000 1000
