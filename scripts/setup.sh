#!/bin/sh
# Make the virtual environment $VENV (default .venv) and install WHAT ('.' or '.[test]') into it.
#   sh scripts/setup.sh WHAT        PYTHON=/path/to/python3.12 chooses the Python
set -eu
what=$1
venv=${VENV:-.venv}

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

choose_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if fits "$candidate"; then echo "$candidate"; return; fi
    done
    found=$("${PYTHON:-python3}" --version 2>&1) || found="no ${PYTHON:-python3}"
    echo "kdlab needs Python 3.11, 3.12 or 3.13 and found $found: install one of them, or name it with PYTHON=/path/to/python3.12." >&2
    return 1
}

if ! fits "$venv/bin/python"; then
    python=$(choose_python)
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "kdlab needs Python's venv module, which this $("$python" --version) lacks: on Debian or Ubuntu, sudo apt install python3-venv." >&2
        exit 1
    fi
    echo "Making $venv with $("$python" --version) ..."
    "$python" -m venv --clear "$venv"
fi
echo "Installing kdlab and what its notebooks need into $venv (the first time: a few minutes, about 6 GB with torch) ..."
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$what" || {
    echo "The installation stopped: see pip's message above (usual causes: no network, a full disk). Run the same command again to go on." >&2
    exit 1
}
