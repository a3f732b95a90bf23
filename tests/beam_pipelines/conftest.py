"""Lets the tests of this folder share `small_corpus`, and the samples of a synthesis."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent / "synthesis"))
