#!/bin/sh
# Make the virtual environment $VENV (default .venv) and install WHAT ('.' or '.[test]') into it, with uv where there is one.
#   sh scripts/setup.sh WHAT        PYTHON=/path/to/python3.12 chooses the Python
#                                   TORCH=cpu takes torch without CUDA, from PyTorch's own index
set -eu
what=$1
venv=${VENV:-.venv}
torch=${TORCH:-}
cpu_index=https://download.pytorch.org/whl/cpu
size=6
case "$torch" in
    "") ;;
    cpu) size=2 ;;
    *) echo "TORCH is cpu, or not set, got '$torch': TORCH=cpu takes torch without CUDA." >&2; exit 1 ;;
esac

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

choose_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if fits "$candidate"; then echo "$candidate"; return; fi
    done
    found=$("${PYTHON:-python3}" --version 2>&1) || found="no ${PYTHON:-python3}"
    echo "kdlab needs Python 3.11, 3.12 or 3.13 and found $found: install one of them, or name it with PYTHON=/path/to/python3.12." >&2
    return 1
}

install() {
    if [ "$tool" = uv ]; then
        uv pip install --quiet --python "$venv/bin/python" "$@"
    else
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    fi || {
        echo "The installation stopped: see $tool's message above (usual causes: no network, a full disk). Run the same command again to go on." >&2
        exit 1
    }
}

tool=pip
if command -v uv >/dev/null 2>&1; then tool=uv; fi
if ! fits "$venv/bin/python"; then
    python=$(choose_python)
    echo "Making $venv with $("$python" --version) ..."
    if [ "$tool" = uv ]; then
        clear=
        if [ -e "$venv" ]; then clear=--clear; fi
        uv venv --quiet --seed $clear --python "$(command -v "$python")" "$venv"  # --seed: pip, for a day without uv
    else
        if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            echo "kdlab needs Python's venv module, which this $("$python" --version) lacks: on Debian or Ubuntu, sudo apt install python3-venv." >&2
            exit 1
        fi
        "$python" -m venv --clear "$venv"
    fi
fi
echo "Installing kdlab and what its notebooks need into $venv by $tool (the first time: a few minutes, about $size GB with torch) ..."
if [ "$torch" = cpu ]; then
    install --upgrade --index-url "$cpu_index" "torch>=2.6" "torchvision>=0.21"
fi
install -e "$what"
