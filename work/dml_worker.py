#!/usr/bin/env python3
"""Work through a queue of sort_faces, usually on Windows with DirectML.

    python dml_worker.py queue.json results.jsonl [--batch N] [--threads N]

sort_faces.py starts this with `--worker PYTHON_EXE`; it can also be started by hand with the
queue of a run that was interrupted. All code is in sort_faces.py, one folder up.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sort_faces

if __name__ == "__main__":
    sys.exit(sort_faces.worker_main())
