"""Generated Python files are run only inside the sandbox, and refused where they do not run."""

from __future__ import annotations

import pytest

from snowcoder_jax.evaluation import sandbox
from snowcoder_jax.recipe import Sandbox
from snowcoder_jax.synthesis.accept import Verdict
from snowcoder_jax.synthesis.execution import judge_runs

pytestmark = pytest.mark.skipif(
    sandbox.availability() is not None, reason=str(sandbox.availability())
)

LIMITS = Sandbox(seconds=5.0)
RUNS = {
    "import json, math\n\n\ndef f():\n    return json.dumps(math.pi)\n\n\nX = f()\n": "",
    # What only a started program would do is not done.
    "if __name__ == '__main__':\n    raise SystemExit(input())\n": "",
    "import sys\nsys.exit(0)\n": "",
    "import sys\nsys.exit()\n": "",
    "import dataclasses\n\n\n@dataclasses.dataclass\nclass A:\n    x: 'int' = 1\n": "",
    "x = '''quotes \" and {braces} and \\\\ é'''\nassert '{' in x\n": "",
    "from __future__ import annotations\nx: nothing = 1\n": "",
    "import os\nassert os.getcwd() == '/tmp'\nassert __name__ == 'document'\n": "",
    "import numpy\n": "missing_module",
    "import this_is_no_module_at_all.part\n": "missing_module",
    "from math import nothing\n": "does_not_run",
    "x = 1 / 0\n": "does_not_run",
    "import sys\nsys.exit(3)\n": "does_not_run",
    "import os\nos._exit(0)\n": "does_not_run",
    "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)\n": "does_not_run",
    "open('/etc/passwd').read()\n": "does_not_run",
    "x = bytearray(1 << 40)\n": "does_not_run",
}


def test_files_that_do_not_run_are_refused_for_a_reason() -> None:
    verdicts = [Verdict(True, "", code, 0, 5) for code in RUNS]
    judged = judge_runs(verdicts, ["Python"] * len(RUNS), LIMITS)
    assert {v.content: v.reason for v in judged} == RUNS
    for before, after in zip(verdicts, judged, strict=True):
        assert after.accepted == (after.reason == "")
        assert (after == before) == after.accepted
        assert after.accepted or after.detail
    by_code = {v.content: v.detail for v in judged}
    assert "ZeroDivisionError" in by_code["x = 1 / 0\n"]


def test_an_endless_file_is_stopped() -> None:
    (judged,) = judge_runs(
        [Verdict(True, "", "while True:\n    pass\n")], ["Python"], Sandbox(seconds=1.0)
    )
    assert (judged.reason, judged.detail) == ("does_not_run", "timeout")


def test_other_languages_and_refused_answers_are_left_as_they_are() -> None:
    verdicts = [Verdict(True, "", "1 / 0\n"), Verdict(False, "repetition", "1 / 0\n")]
    assert judge_runs(verdicts, ["Ruby", "Python"], LIMITS) == verdicts
    assert judge_runs([], [], LIMITS) == []
