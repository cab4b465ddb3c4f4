"""New memory: whole huge pages inside of a tensor are asked for, and nothing outside."""

import torch

from pyg_nsa.compiled import memory

HUGE = 1 << 21


def test_advice_stays_inside_of_the_tensor(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "_madvise", lambda: lambda *args: asked.append(args))
    like = torch.empty(0)
    for numel in (1 << 20, (1 << 20) + 12345, 10_000_000):
        x = memory.empty(like, numel)
        begin, length, advice = asked.pop()
        assert begin % HUGE == 0
        assert length % HUGE == 0
        assert length >= 4 * numel - 2 * HUGE
        assert x.data_ptr() <= begin
        assert begin + length <= x.data_ptr() + 4 * numel
        assert advice == 14
    assert memory.empty(like, 1000, 16).shape == (1000, 16)
    assert not asked  # small


def test_memory_can_be_written_and_systems_without_advice_do_without(monkeypatch):
    for advise in (memory._madvise, lambda: None):
        monkeypatch.setattr(memory, "_madvise", advise)
        x = memory.empty(torch.empty(0, dtype=torch.float64), 3_000_000)
        x.fill_(2)
        assert x.dtype == torch.float64
        assert x.sum() == 6_000_000
