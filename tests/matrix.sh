#!/usr/bin/env bash
# The tests on every supported Python with the oldest and the newest dependencies that pyproject.toml allows.
# usage: tests/matrix.sh [PYTHON ...]     e.g. tests/matrix.sh 3.13; all of them by default
# The outcome goes to build/matrix/table.md, for docs/versions.md.
set -euo pipefail
cd "$(dirname "$0")/.."
pythons=("$@")
[ ${#pythons[@]} -gt 0 ] || pythons=(3.11 3.12 3.13)
work=build/matrix
mkdir -p "$work"
[ -x "$work/uv/bin/uv" ] || { python3 -m venv "$work/uv" && "$work/uv/bin/pip" install -q uv; }
uv="$PWD/$work/uv/bin/uv"
printf '| Python | dependencies | outcome |\n|---|---|---|\n' > "$work/table.md"
failed=0
for python in "${pythons[@]}"; do
    for resolution in lowest-direct highest; do
        venv="$work/$python-$resolution"
        log="$venv.log"
        rm -rf "$venv"
        # Only wheels: the oldest version that has one for this Python is the oldest that can be installed.
        if "$uv" venv -q --python "$python" "$venv" > "$log" 2>&1 &&
            VIRTUAL_ENV="$venv" "$uv" pip install -q --resolution "$resolution" --only-binary :all: --no-binary dedupkit-vision \
                -e '.[dev]' >> "$log" 2>&1 &&
            DEDUPKIT_REQUIRE_ALL=1 "$venv/bin/python" -m pytest -n 2 >> "$log" 2>&1; then
            outcome="$(tail -n 1 "$log" | tr -d '=')"
        else
            outcome="failed: $(tail -n 1 "$log" | cut -c 1-120)"
            failed=1
        fi
        printf '| %s | %s | %s |\n' "$python" "${resolution%-direct}" "$outcome" | tee -a "$work/table.md"
    done
done
exit $failed
