#!/bin/sh
# The environment that open_clip's caption generation still works in: transformers 4.55.4 and what it needs, over
# everything else of .venv, so that both sides of benchmarks/caption.py run on the very same torch and open_clip.
#
#     benchmarks/parity_env.sh [FOLDER]      (default: .venv-parity beside .venv; about 100 MB, half a minute)
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-"$here/.venv-parity"}
uv=$(command -v uv || echo "$here/.uv/bin/uv")
"$uv" venv --quiet --allow-existing --python "$here/.venv/bin/python" "$folder"
"$uv" pip install --quiet --python "$folder/bin/python" 'transformers==4.55.4'
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$here/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/over.pth"
"$folder/bin/python" -c 'import open_clip, torch, transformers
print(f"torch {torch.__version__}, open_clip {open_clip.__version__}, transformers {transformers.__version__}")'
