#!/usr/bin/env bash
# Runs the Dockerfile without Docker: its COPY lines into an empty folder, its RUN lines in a fresh virtual environment.
#     scripts/run_dockerfile.sh [SITE_PACKAGES]   a folder of packages that are not to be installed again
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH"
if [ $# -gt 0 ]; then
  echo "$1" >"$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/known.pth"
fi
mkdir "$work/src"
while read -r instruction arguments; do
  case $instruction in
    COPY) read -ra words <<<"$arguments" && cp -r "${words[@]::${#words[@]}-1}" "$work/src/${words[-1]}" ;;
    RUN) echo "RUN $arguments" && (cd "$work/src" && unset PYTHONPATH && sh -euc "$arguments") ;;
  esac
done <Dockerfile
echo "every RUN line has run"
