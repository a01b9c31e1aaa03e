"""What a command makes of errors: a message and exit code 2 for a mistake, whether torch was imported or not."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from backbones.contract import BackboneError
from transfer.cli import run
from transfer.types import TryAgain, UserError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("lr is -1"), 2, "error: lr is -1\n"),
        (TryAgain("the disk is full"), 2, "error: the disk is full\n"),
        (BackboneError("no such model"), 2, "error: no such model\n"),
        (torch.OutOfMemoryError("12 GiB"), 2, "error: out of memory: lower loader.batch_size"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.pth"), 2, "error: a.pth: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_mistake_ends_with_a_message(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> int:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run(fails)
    assert stopped.value.code == code
    assert capsys.readouterr().err.startswith(said)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_the_code_of_the_command_is_kept() -> None:
    with pytest.raises(SystemExit) as stopped:
        run(lambda: 7)
    assert stopped.value.code == 7
