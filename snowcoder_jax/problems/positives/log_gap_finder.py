"""Task: find the silent stretches in a log.

A healthy service writes at least one log line every few minutes. Each line
starts with a time stamp such as ``2024-03-09 23:58:10``, followed by a space and
the message; continuation lines (stack traces, for example) carry no time stamp
and belong to the line before them. Report each pair of neighbouring time stamps
that lie further apart than a given limit, together with the length of the
silence. The log is read as a stream, because it can be very large.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

STAMP_FORMAT = "%Y-%m-%d %H:%M:%S"
STAMP_LENGTH = len("2024-03-09 23:58:10")


class Gap(NamedTuple):
    """A stretch of time in which the log was silent."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        return self.end - self.start


def _time_stamp(line: str) -> datetime | None:
    """Return the time stamp of a log line, or None for a continuation line."""
    try:
        return datetime.strptime(line[:STAMP_LENGTH], STAMP_FORMAT)
    except ValueError:
        return None


def find_gaps(lines: Iterable[str], limit: timedelta) -> Iterator[Gap]:
    """Yield every gap between neighbouring time stamps longer than ``limit``."""
    previous: datetime | None = None
    for line in lines:
        current = _time_stamp(line)
        if current is None:
            continue
        if previous is not None and current - previous > limit:
            yield Gap(previous, current)
        previous = current


if __name__ == "__main__":
    log = """\
2024-03-09 23:58:10 worker started
2024-03-09 23:59:30 job 17 failed
    Traceback: disk is full
2024-03-10 00:20:00 worker restarted
2024-03-10 00:25:00 job 18 done
""".splitlines()
    gaps = list(find_gaps(log, timedelta(minutes=5)))
    assert [gap.length for gap in gaps] == [timedelta(minutes=20, seconds=30)]
    for gap in gaps:
        print(f"silent for {gap.length} from {gap.start}")
