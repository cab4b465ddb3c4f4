"""Compiled functions where they can't be kept on disk."""

from __future__ import annotations

import pytest

from pyg_nsa.compiled.compiling import kept_on_disk


@pytest.fixture
def full_disk(monkeypatch):
    from numba.core.caching import IndexDataCacheFile

    tries = []

    def no_space(self, *args):
        tries.append(args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", no_space)
    return tries


def test_what_is_compiled_at_a_call_runs(full_disk):
    from numba import njit

    @kept_on_disk(njit)
    def twice(x):
        return 2 * x

    assert twice(21) == 42
    assert full_disk


def test_what_is_compiled_at_once_runs(full_disk):
    from numba import cfunc, types

    @kept_on_disk(cfunc, types.int64(types.int64))
    def twice(x):
        return 2 * x

    assert twice.ctypes(21) == 42
    assert full_disk
