#!/usr/bin/env bash
# Runs once, when Gradescope builds the image: the interpreter, the sandbox, and the pinned packages.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq make bubblewrap python3 python3-venv
python=python3
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    apt-get install -y -qq python3.11 python3.11-venv
    python=python3.11
fi
make -C "${AUTOGRADER:-/autograder}/source/kit" setup PYTHON="$python"
