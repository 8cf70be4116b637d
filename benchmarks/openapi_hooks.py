"""Hooks of schemathesis for `openapi.py`: contents of files, names of tasks that exist, and counts of answers.

The variable OPENAPI_FOLDER names a folder with the image and tuned file to send; counts.json is written there.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any
from zlib import crc32

import schemathesis
from hypothesis import strategies as st

FOLDER = Path(os.environ["OPENAPI_FOLDER"])
KEPT = json.loads((FOLDER / "tasks.json").read_text())  # tasks that are asked and never replaced or removed
WRITTEN = [f"w{number}" for number in range(4)]
DESCRIPTION = json.loads((FOLDER / "openapi.json").read_text(encoding="utf-8"))
TASK_NAME = re.compile(DESCRIPTION["components"]["parameters"]["Task"]["schema"]["pattern"])
COUNTS: Counter[str] = Counter()

images = [path.read_bytes() for path in sorted(FOLDER.glob("*.image"))]
tuned_files = [path.read_bytes() for path in sorted(FOLDER.glob("*.tuned"))]
schemathesis.openapi.media_type("image/png", st.sampled_from(images))
schemathesis.openapi.media_type("application/octet-stream", st.sampled_from(tuned_files))
encoded = [base64.b64encode(image).decode() for image in images]
schemathesis.openapi.format("image-base64", st.sampled_from([*encoded, f"data:image/png;base64,{encoded[0]}"]))


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Replace half of the valid names by those of tasks."""
    name = (case.path_parameters or {}).get("task")
    if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
        return case
    choice = crc32(name.encode())
    names = WRITTEN if case.method.upper() in ("PUT", "DELETE") else [*KEPT, *WRITTEN]
    if choice % 2:
        case.path_parameters["task"] = names[choice // 2 % len(names)]
    return case


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    COUNTS[f"{case.operation.label} {response.status_code}"] += 1


def write_counts() -> None:
    (FOLDER / "counts.json").write_text(json.dumps(COUNTS))


atexit.register(write_counts)
