"""Large tensors get pages that are kept: never those of a tensor that is still there, and not without end."""

import gc
import mmap
import sys
import threading
import weakref

import pytest
import torch
from torch.nn import Parameter

from pyg_nsa.compiled import kept_pages, memory
from pyg_nsa.compiled.kept_pages import give_back, kept_bytes

LIKE = torch.empty(0)
MIB = 1 << 20
LARGE = 2 * MIB  # numbers; 8 MiB

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are kept on Linux")


@pytest.fixture(autouse=True)
def _nothing_kept():
    gc.collect()
    give_back()
    yield
    give_back()


@linux
def test_memory_of_a_dead_tensor_is_used_again():
    first = memory.empty(LIKE, LARGE)
    address = first.fill_(1).data_ptr()
    assert kept_bytes() == 0
    del first
    assert kept_bytes() == 8 * MIB
    second = memory.empty(LIKE, 2, LARGE // 2)
    assert second.data_ptr() == address
    assert second.shape == (2, LARGE // 2)
    assert kept_bytes() == 0


@linux
@pytest.mark.parametrize(
    "holds", [lambda t: t[5:].view(-1), lambda t: t.numpy(), lambda t: t.untyped_storage()]
)
def test_memory_is_not_used_again_while_anything_refers_to_it(holds):
    first = memory.empty(LIKE, LARGE).fill_(1)
    holder, address = holds(first), first.data_ptr()
    del first
    second = memory.empty(LIKE, LARGE).fill_(2)
    assert second.data_ptr() != address
    if not isinstance(holder, torch.UntypedStorage):
        assert (holder == 1).all()
    del holder
    assert kept_bytes() == 8 * MIB


@linux
def test_autograd_holds_what_it_saved():
    x = torch.ones(LARGE, requires_grad=True)
    saved = memory.empty(LIKE, LARGE).fill_(3)
    y = x * saved
    del saved
    memory.empty(LIKE, LARGE).fill_(7)
    y.sum().backward()
    assert (x.grad == 3).all()


@linux
def test_a_block_serves_what_is_a_little_smaller_only():
    block = memory.empty(LIKE, LARGE)
    address = block.data_ptr()
    del block
    much_smaller = memory.empty(LIKE, LARGE // 2)
    assert much_smaller.data_ptr() != address
    larger = memory.empty(LIKE, LARGE + 1024)
    assert larger.data_ptr() != address


@linux
def test_no_more_is_kept_than_was_in_use_at_a_time():
    for numbers in (LARGE, 2 * LARGE, 4 * LARGE, 3 * LARGE, LARGE):
        memory.empty(LIKE, numbers)
        assert kept_bytes() <= 32 * MIB
    both = memory.empty(LIKE, 4 * LARGE), memory.empty(LIKE, 4 * LARGE)
    del both
    assert kept_bytes() == 64 * MIB


@linux
def test_kept_memory_is_given_back():
    block = memory.empty(LIKE, LARGE)
    pages = weakref.ref(kept_pages._pages.free[0]) if kept_pages._pages.free else None
    assert pages is None
    del block
    pages = weakref.ref(kept_pages._pages.free[0])
    give_back()
    assert kept_bytes() == 0
    assert pages() is None


@linux
def test_threads_never_share_a_block():
    wrong = []

    def work(number):
        for _ in range(40):
            mine = [memory.empty(LIKE, LARGE) for _ in range(3)]
            for t in mine:
                t[::4096] = number
            wrong.extend(t for t in mine if not bool((t[::4096] == number).all()))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert kept_bytes() <= 4 * 7 * 8 * MIB  # the last ones die when the next ones are there


@linux
def test_pages_are_huge_ones_where_advice_is_taken(monkeypatch):
    asked = []
    advise = kept_pages._Block._advise
    monkeypatch.setattr(
        kept_pages._Block, "_advise", lambda b, name: asked.append(name) or advise(b, name)
    )
    x = memory.empty(LIKE, LARGE)
    assert x.data_ptr() % (2 * MIB) == 0
    assert asked == ["MADV_HUGEPAGE"]
    del x
    assert asked == ["MADV_HUGEPAGE", "MADV_FREE"]


@linux
def test_a_kernel_without_advice_does(monkeypatch):
    monkeypatch.setattr(mmap, "MADV_FREE", 12345)
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    x = memory.empty(LIKE, LARGE).fill_(1)
    assert x.sum() == LARGE
    del x
    assert kept_bytes() == 8 * MIB


@linux
def test_without_memory_malloc_says_so(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    x = memory.empty(LIKE, LARGE).fill_(1)
    assert x.sum() == LARGE
    del x
    assert kept_bytes() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("platform", [sys.platform, "darwin"])
def test_dtype_and_shape_are_those_asked_for(dtype, platform, monkeypatch):
    monkeypatch.setattr(kept_pages.sys, "platform", platform)
    for like in (torch.empty(0, dtype=dtype), Parameter(torch.empty(1, dtype=dtype))):
        for shape in ((1000, 16), (3_000_000,), (2, 1000, 1500), (0, 5)):
            x = memory.empty(like, *shape)
            assert x.shape == shape
            assert x.dtype == dtype
            assert type(x) is torch.Tensor
            assert not x.requires_grad
            x.fill_(2)
            assert x.is_contiguous()
            assert bool((x == 2).all())
