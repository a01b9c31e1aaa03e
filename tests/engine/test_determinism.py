"""The switch to exact algorithms lasts as long as it is wanted."""

from __future__ import annotations

import pytest
import torch

from transfer.engine.determinism import deterministic


def test_inexact_operations_are_refused_within_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "as it was")
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()

    def fail_on_the_way() -> None:
        with deterministic(True):
            assert torch.are_deterministic_algorithms_enabled()
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        fail_on_the_way()
    assert not torch.are_deterministic_algorithms_enabled()
