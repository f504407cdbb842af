#!/usr/bin/env bash
# Builds the wheel and runs the unit tests against it in a fresh environment. The checkout's own
# packages are left out of the copy, so nothing but the wheel can answer an import. The environment is
# of the first Python on the PATH, which may be of another patch release than .venv's.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv="$PWD/.venv/bin/uv"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$uv" build --wheel --quiet --build-constraints requirements-build.txt --require-hashes \
  --out-dir "$work/dist"
"$uv" export --frozen --quiet --no-emit-project --only-group test >"$work/test.txt"
"$uv" export --frozen --quiet --no-emit-project --no-default-groups >"$work/runtime.txt"

"$uv" venv --quiet --python "$(command -v python3.11 || echo .venv/bin/python)" "$work/venv"
python="$work/venv/bin/python"
"$uv" pip install --quiet --python "$python" --require-hashes \
  -r "$work/runtime.txt" -r "$work/test.txt"
"$uv" pip install --quiet --python "$python" --no-deps "$work"/dist/*.whl

mkdir "$work/tree"
vectors="$(dirname "$PWD")/shared" # test vectors, where a checkout has them beside it
if [[ -d "$vectors" ]]; then ln -s "$vectors" "$work/shared"; fi
git ls-files --cached --others --exclude-standard -z -- ':!gateway' ':!connectors' ':!rego' |
  while IFS= read -r -d '' path; do [[ -e "$path" ]] && printf '%s\0' "$path"; done |
  tar --create --null --files-from=- | tar --extract --directory="$work/tree"

cd "$work/tree"
"$python" - <<'CHECK'
import pathlib, sysconfig
import connectors, gateway

site = pathlib.Path(sysconfig.get_path("purelib"))
for package in (gateway, connectors):
    assert pathlib.Path(package.__file__).is_relative_to(site), f"{package.__file__} is not the wheel's"
CHECK
"$python" -m pytest --quiet -p no:cacheprovider tests/unit
