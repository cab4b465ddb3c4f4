"""Kernels in one go: the bits of single calls for any number of threads, order, errors, and memory that is lent."""

import threading

import pytest
import torch

from pyg_nsa.compiled import sequence
from pyg_nsa.compiled.linear import linear_backward, linear_forward
from pyg_nsa.compiled.sequence import borrowed, in_one_go


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def chain(x, weights, small):
    """Layers that read what the last one wrote, with a kernel for one thread alone between them."""
    results = []
    for weight in weights:
        x = linear_forward(x, weight, None)
        grad_x = torch.empty_like(x)
        of_weight, _ = linear_backward(x, x, weight, grad_x, has_bias=False)
        # Too little work to wake anybody.
        lone = linear_forward(small, weight[:16, :16].contiguous(), None, small)
        results += [x, grad_x, of_weight, lone]
    return results


def problem(rows=300):
    return torch.randn(rows, 32), [torch.randn(32, 32) / 6 for _ in range(12)], torch.randn(2, 16)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_results_are_those_of_single_calls_bit_by_bit(threads, count):
    given = problem()
    threads(1)
    expected = chain(*given)
    threads(count)
    for _ in range(40):  # more threads than cores meet in another order each time
        with in_one_go():
            results = chain(*given)
        assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


def test_one_go_wakes_threads_once(monkeypatch, threads):
    threads(2)
    started = []
    original = sequence.run_on_threads
    monkeypatch.setattr(
        sequence, "run_on_threads", lambda *args: started.append(args[2]) or original(*args)
    )
    given = problem()
    with in_one_go():
        with in_one_go():
            results = chain(*given)
        assert started == []  # the inner block belongs to the outer one
    assert started == [2]
    assert all(torch.isfinite(r).all() for r in results)
    chain(*given)
    assert len(started) == 1 + 3 * 12
    with in_one_go():
        pass
    with in_one_go():
        linear_forward(*given[:1], given[1][0], None)
    assert len(started) == 1 + 3 * 12 + 1


def test_after_an_error_nothing_ran_and_nothing_is_left(monkeypatch):
    ran = []
    monkeypatch.setattr(sequence, "run_on_threads", lambda *args: ran.append(args))
    x, (weight, *_), _ = problem()

    def stopped():
        with in_one_go():
            linear_forward(x, weight, None)
            raise KeyError

    with pytest.raises(KeyError):
        stopped()
    assert ran == []
    linear_forward(x, weight, None)
    assert len(ran) == 1


def test_each_thread_of_python_notes_its_own_calls():
    given = problem(2000)
    expected = chain(*given)
    failures = []

    def work():
        for _ in range(20):
            with in_one_go():
                results = chain(*given)
            if not all(torch.equal(a, b) for a, b in zip(results, expected, strict=True)):
                failures.append(1)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_memory_is_lent_by_name_inside_of_one_go_alone():
    like = torch.empty(0)
    first, second = borrowed("a", like, 3, 4), borrowed("a", like, 3, 4)
    assert first.data_ptr() != second.data_ptr()
    with in_one_go():
        first = borrowed("a", like, 3, 4)
        assert first.shape == (3, 4)
        assert first.is_contiguous()
        assert borrowed("a", like, 2, 5).data_ptr() == first.data_ptr()
        assert borrowed("b", like, 3, 4).data_ptr() != first.data_ptr()
        larger = borrowed("a", like, 100)
        assert larger.numel() == 100
        assert borrowed("a", like, 100).data_ptr() == larger.data_ptr()
        wide = borrowed("a", like.double(), 4)
        assert wide.dtype == torch.float64
    with in_one_go():
        assert borrowed("a", like, 2).numel() == 2
