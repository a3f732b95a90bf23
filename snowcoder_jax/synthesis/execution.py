"""Does a Python file run: its imports, its top level. Only inside the sandbox.

The file is run as an import would run it, so what stands under `if __name__ == "__main__":` is
not: that may want arguments, a terminal, a minute. The sandbox has the standard library and
nothing else; a file that imports more is refused by a reason of its own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from snowcoder_jax.evaluation.sandbox import Outcome, run_programs
from snowcoder_jax.recipe import Sandbox
from snowcoder_jax.synthesis.accept import Reason, Verdict

# `sys.exit(0)` at the end of a script is an end like any other.
_PROGRAM = """\
import sys, types
module = sys.modules["document"] = types.ModuleType("document")
module.__file__ = "/document.py"
try:
    exec(compile({code!r}, "/document.py", "exec", dont_inherit=True), module.__dict__)
except SystemExit as e:
    if e.code not in (None, 0):
        raise
"""
_MISSING = re.compile(r"ModuleNotFoundError: No module named")


def judge_runs(
    verdicts: Sequence[Verdict], languages: Sequence[str], limits: Sandbox
) -> list[Verdict]:
    """`verdicts`, of which accepted Python files that do not run are refused.

    Args:
      languages: of the documents. limits: of each run.

    Raises:
      MachineError: the sandbox is not available.
    """
    judged = list(verdicts)
    at = [i for i, v in enumerate(verdicts) if v.accepted and languages[i] == "Python"]
    if not at:
        return judged
    programs = [_PROGRAM.format(code=verdicts[i].content) for i in at]
    for i, outcome in zip(at, run_programs(programs, limits), strict=True):
        if not outcome.passed:
            judged[i] = dataclasses.replace(
                verdicts[i], accepted=False, reason=_reason(outcome), detail=outcome.reason
            )
    return judged


def _reason(outcome: Outcome) -> Reason:
    return "missing_module" if _MISSING.search(outcome.reason) else "does_not_run"
