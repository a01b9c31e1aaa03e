"""Files of strangers: what is too long, or no file, is refused before it is read."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from transfer.data.strangers import read_bounded


def test_a_file_is_read_up_to_its_limit_and_refused_beyond(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes; the limit is 4") as refused:
        read_bounded(path, 4)
    assert refused.value.errno == errno.EFBIG
    path.write_bytes(b"")
    assert read_bounded(path, 5) == b""


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes are POSIX's")
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_bounded(tmp_path / "pipe", 10)
