"""Exercise: steady the signal of a shaky door sensor.

A magnetic sensor on a door reports "open" or "closed" many times per second. When
the door moves, the reading flickers for a moment. A new state counts only after it
has been read ``needed`` times in a row; until then the old state stays in force.

Write a class that is fed one reading at a time, knows the current steady state
and tells when it has changed.
"""


class DoorSensor:
    """Filters flickering readings down to real changes of state."""

    def __init__(self, state: str, needed: int) -> None:
        """Start in ``state``; a change takes ``needed`` equal readings in a row."""
        if needed < 1:
            raise ValueError("at least one reading is needed for a change")
        self.state = state
        self._needed = needed
        self._candidate = state
        self._count = 0

    def read(self, reading: str) -> bool:
        """Take in one reading; return True if it made the state change."""
        if reading == self.state:
            # Back to the old state: whatever was building up was a flicker.
            self._count = 0
            return False
        if reading != self._candidate:
            self._candidate = reading
            self._count = 0
        self._count += 1
        if self._count < self._needed:
            return False
        self.state = reading
        self._count = 0
        return True


if __name__ == "__main__":
    sensor = DoorSensor("closed", needed=3)
    flicker = ["open", "closed", "open", "open", "closed"]
    assert not any(sensor.read(reading) for reading in flicker)
    assert sensor.state == "closed"

    changes = [sensor.read("open") for _ in range(4)]
    assert changes == [False, False, True, False]
    assert sensor.state == "open"
    print("The door is now", sensor.state)
