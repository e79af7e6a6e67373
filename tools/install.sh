#!/usr/bin/env bash
# Installs d2_balanced with all that it needs, once. `tools/install.sh --which` only prints the Python in use.
#
# The environment is, in this order:
#   the folder VENV, if that variable is set (created if absent);
#   the interpreter PYTHON, or the activated environment, if detectron2 is installed there;
#   .venv in this checkout (created with PYTHON, or else with the first of PYTHONS that is there).
# A detectron2 that is already there, compiled or not, is used as it is, and so are the torch and NumPy beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CONSTRAINTS=${CONSTRAINTS:-requirements/constraints.txt}
STAMP=.install-stamp
PYTHONS="python3.11 python3.12 python3.13 python3.10 python3.14 python3" # the best tested first
MADE_HERE=made-by-d2_balanced # a file in the environments that this script created
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '\n== %s\n' "$*" >&2; }
fail() { printf '\nERROR: %s\n' "$*" >&2; exit 1; }

has() { # has PYTHON MODULE...: whether the modules can be found outside this folder; none is imported
    local find="import importlib.util as u, sys; sys.path.pop(0); sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
    "$1" -c "$find" "${@:2}" 2>/dev/null
}

state() { # what an installation was made from, and the packages that the doctor then called healthy
    local packages="import os, sysconfig; print(sorted(os.listdir(sysconfig.get_path('purelib'))))"
    echo "$PY $PWD $(cat requirements/*.txt "$CONSTRAINTS" setup.py tools/install.sh | cksum)" \
        "$("$PY" -c "$packages" 2>/dev/null | cksum)"
}

environment_python() {
    local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    if [ -n "${VENV:-}" ]; then
        echo "$VENV/bin/python"
    elif [ -n "${PYTHON:-}" ] && has "$PYTHON" detectron2; then
        command -v "$PYTHON"
    elif [ -n "$active" ] && has "$active/bin/python" detectron2; then
        echo "$active/bin/python"
    else
        echo "$PWD/.venv/bin/python"
    fi
}

version_of() { # 3.11, or nothing where there is no such interpreter
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

base_python() { # the interpreter that a new environment is made with
    local python found=
    for python in ${PYTHON:-$PYTHONS}; do
        case $(version_of "$python") in
            3.1[0-4]) command -v "$python"; return ;;
            ?*) found+=", $python is $(version_of "$python")" ;;
        esac
    done
    fail "Python 3.10 to 3.14 is needed and was not found (looked for: ${PYTHON:-$PYTHONS}$found)." \
        "Install one (Debian, Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3; where the system's" \
        "is older: conda create -n d2 python=3.12, pyenv install 3.12 or uv python install 3.12)," \
        "and name it if it is not on the PATH: make install PYTHON=/path/to/python3.12"
}

install() { # install WHAT PIP-ARGUMENTS...
    say "$1"
    local output=(--quiet --quiet --progress-bar off) # errors only, where nobody watches a progress bar
    if [ -t 1 ]; then output=(); fi
    "$PY" -m pip install "${output[@]}" "${@:2}" >&2 || fail "This step failed: $1. The reason is above; run the" \
        "same command again when it is mended: finished steps are not repeated."
}

create_environment() {
    local base
    base=$(base_python)
    say "Creating the environment $ENV_DIR with $base"
    mkdir -p "$ENV_DIR"
    touch "$ENV_DIR/$MADE_HERE"
    "$base" -m venv "$ENV_DIR" || fail "$base cannot make environments; install its venv module" \
        "(Debian, Ubuntu: apt install python$(version_of "$base")-venv)."
}

install_everything_pinned() {
    install "1/4 pip, setuptools, wheel" -r requirements/build.txt
    install "2/4 torch and torchvision (about 5 GB installed; minutes on a slow line)" \
        -c "$CONSTRAINTS" -r requirements/torch.txt
    if has "$PY" detectron2; then
        say "3/4 detectron2 is there"
    else
        install "3/4 detectron2 0.6 (pure Python)" --no-deps --use-pep517 --no-build-isolation \
            -r requirements/detectron2.txt
    fi
    # pip would report that detectron2 0.6 asks for older versions and for packages that only its developers need.
    install "4/4 d2_balanced and its other dependencies" --no-warn-conflicts --no-build-isolation \
        -c "$CONSTRAINTS" -e '.[test]'
}

install_beside_existing_detectron2() {
    has "$PY" detectron2 || fail "$ENV_DIR was not made by this script and has no detectron2. Nothing was changed." \
        "Install detectron2 there first (README.md, 'Install'), or name a folder that does not exist yet."
    install "Adding d2_balanced to $ENV_DIR; its detectron2 and torch stay as they are" -e '.[test]'
}

PY=$(environment_python)
if [ "${1:-}" = --which ]; then
    echo "$PY"
    exit
fi
ENV_DIR=$(dirname "$(dirname "$PY")")

if [ "$(cat "$STAMP" 2>/dev/null)" = "$(state)" ] && has "$PY" detectron2 d2_balanced pytest; then
    echo "Installed already, in $ENV_DIR." >&2
    exit
fi
if [ ! -x "$PY" ] || { [ -e "$ENV_DIR/$MADE_HERE" ] && ! has "$PY" pip; }; then create_environment; fi
if [ -e "$ENV_DIR/$MADE_HERE" ]; then install_everything_pinned; else install_beside_existing_detectron2; fi
"$PY" -m d2_balanced.doctor
state > "$STAMP"
say "Installed in $ENV_DIR."
