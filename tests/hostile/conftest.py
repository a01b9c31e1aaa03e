"""Says after a long run what became of the fuzzed inputs."""

from __future__ import annotations

import sys
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line, where TRICKSTACK_FUZZ asked for more than every run of the tests makes."""
    fuzzing = sys.modules.get("fuzzing")
    if fuzzing is not None and fuzzing.FACTOR > 1:
        count, read = len(fuzzing.ATTEMPTS), sum(fuzzing.ATTEMPTS)
        terminalreporter.write_line(f"fuzzed: {count} inputs, of which {read} were read and {count - read} refused")
