#!/usr/bin/env bash
# The tests on every supported Python with the oldest and the newest dependencies that pyproject.toml allows.
# usage: tests/matrix.sh [--light] [PYTHON ...]     e.g. tests/matrix.sh --light 3.13; all of them by default
# A PYTHON is a version or the path of an interpreter. --light leaves out torch, and with it the tests of its models: a
# venv takes a minute. RESOLUTIONS="highest" runs one of the two. The outcome goes to build/matrix/table.md, for
# docs/versions.md.
set -euo pipefail
cd "$(dirname "$0")/.."
extra=dev require=1
if [ "${1:-}" = --light ]; then
    extra=test require=0
    shift
fi
pythons=("$@")
[ ${#pythons[@]} -gt 0 ] || pythons=(3.11 3.12 3.13)
work=build/matrix
mkdir -p "$work"
[ -x "$work/uv/bin/uv" ] || { python3 -m venv "$work/uv" && "$work/uv/bin/pip" install -q uv; }
uv="$PWD/$work/uv/bin/uv"
printf '| Python | dependencies | outcome |\n|---|---|---|\n' > "$work/table.md"
failed=0
for python in "${pythons[@]}"; do
    for resolution in ${RESOLUTIONS:-lowest-direct highest}; do
        venv="$work/$(basename "${python%/bin/*}")-$resolution-$extra"
        log="$venv.log"
        rm -rf "$venv"
        # Only wheels, but for pdqhash, which has none: the oldest version that has one for this Python is the oldest that can be installed.
        if "$uv" venv -q --seed --python "$python" "$venv" > "$log" 2>&1 &&
            VIRTUAL_ENV="$venv" "$uv" pip install -q --resolution "$resolution" --only-binary :all: \
                --no-binary dedupkit-vision --no-binary pdqhash -e ".[$extra]" >> "$log" 2>&1 &&
            DEDUPKIT_REQUIRE_ALL=$require "$venv/bin/python" -m pytest -n 2 >> "$log" 2>&1; then
            outcome="$(tail -n 1 "$log" | tr -d '=')"
        else
            outcome="failed: $(tail -n 1 "$log" | cut -c 1-120)"
            failed=1
        fi
        printf '| %s | %s, extra %s | %s |\n' "$python" "${resolution%-direct}" "$extra" "$outcome" | tee -a "$work/table.md"
    done
done
exit $failed
