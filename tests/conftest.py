"""What every test shares: the tests that were left out are counted and named at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no fault of the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

sys.path.insert(0, str(Path(__file__).parent))  # for `hand_run`


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section(f"{len(skipped)} test(s) left out")
    for report in sorted(skipped, key=lambda r: str(r.nodeid)):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.line(f"{report.nodeid}: {str(reason).removeprefix('Skipped: ')}")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., str]:
    """Writes a finished run by hand, see `hand_run.make_run`."""
    import hand_run

    def make(**arguments: tuple[str, ...]) -> str:
        return hand_run.make_run(tmp_path, **arguments)

    return make
