"""Products of small matrices inside of kernels, against numpy in float64."""

import os
import subprocess
import sys

import numpy as np
import pytest
from llvmlite import binding

from pyg_nsa.compiled.matmul import COLUMNS, LANES, ROWS, add_rows, matmul, pack

rng = np.random.default_rng(0)


def numbers(*shape):
    return rng.standard_normal(shape, dtype=np.float32)


def product(a, b, *, transposed=False, packed=False, start=None, bias=None):
    """``start + bias + a @ b``; ``a`` is handed over as its transpose if asked for, ``b`` packed."""
    (rows, depth), cols = a.shape, b.shape[1]
    left = np.ascontiguousarray(a.T if transposed else a)
    strides = (1, rows) if transposed else (depth, 1)
    right, row = b, cols
    if packed:
        right, row = np.empty(depth * cols, np.float32), 0
        pack(right.ctypes.data, b.ctypes.data, cols, 1, depth, cols)
    c = np.full((rows + 2, cols), np.nan, np.float32)  # two rows that must not be touched
    matmul(
        (c.ctypes.data, cols),
        (left.ctypes.data, *strides),
        (right.ctypes.data, row),
        (0, 0) if start is None else (start.ctypes.data, cols),
        0 if bias is None else bias.ctypes.data,
        (rows, cols, depth),
    )
    assert np.isnan(c[rows:]).all()
    return c[:rows]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("cols", [16, 32, 48, 64, 80, 112])
@pytest.mark.parametrize("rows", [1, ROWS - 1, ROWS, 2 * ROWS + 3])
def test_products(rows, cols, transposed, packed):
    assert cols % COLUMNS == 0
    for depth in (1, 5, 64):
        a, b = numbers(rows, depth), numbers(depth, cols)
        start, bias = numbers(rows, cols), numbers(cols)
        for s in (None, start):
            for t in (None, bias):
                exact = a.astype(float) @ b.astype(float)
                exact = exact + (0 if s is None else s) + (0 if t is None else t)
                result = product(a, b, transposed=transposed, packed=packed, start=s, bias=t)
                np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-5)


def test_a_number_is_the_same_sum_wherever_its_tile_begins():
    a, b = numbers(2 * ROWS + 1, 40), numbers(40, 48)
    whole = product(a, b)
    for first in range(len(a)):
        assert np.array_equal(product(a[first:], b), whole[first:])


def test_packing_a_transposed_matrix_is_packing_its_transpose():
    for cols in (16, 48, 64):
        b = numbers(7, cols)
        given = np.ascontiguousarray(b.T)
        packed, of_transposed = np.empty((2, b.size), np.float32)
        pack(packed.ctypes.data, b.ctypes.data, cols, 1, 7, cols)
        pack(of_transposed.ctypes.data, given.ctypes.data, 1, 7, 7, cols)
        assert np.array_equal(packed, of_transposed)


def test_rows_are_added_up():
    b, total, one = numbers(70, 48), numbers(48), np.ones(1, np.float32)
    exact = b.astype(float).sum(0)
    for start in (total, None):
        expected = exact + (0 if start is None else start.astype(float))
        at = 0 if start is None else start.ctypes.data
        add_rows(total.ctypes.data, at, b.ctypes.data, 48, one.ctypes.data, 70, 48)
        np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(LANES == 4, reason="this CPU has no wider vectors to leave out")
@pytest.mark.parametrize(("left_out", "lanes"), [("avx512f", 8), ("avx", 4)])
def test_narrower_vectors_give_the_same(tmp_path, left_out, lanes):
    """What another CPU would run: AVX2 where this one has AVX-512, and neither."""
    features = binding.get_host_cpu_features().flatten().split(",")
    if f"+{left_out}" not in features:
        assert lanes == LANES  # this CPU is that other one, and runs it in all other tests
        return
    kept = [f for f in features if not f[1:].startswith(left_out)]
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "x86-64" if "x86" in os.uname().machine else "generic",
        "NUMBA_CPU_FEATURES": ",".join(kept),
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    code = (
        "import sys; sys.path.insert(0, 'tests/compiled')\n"
        "import test_matmul as t\n"
        f"assert t.LANES == {lanes}, t.LANES\n"
        "for rows in (1, t.ROWS, 2 * t.ROWS + 3):\n"
        "    for cols in (16, 48, 64):\n"
        "        t.test_products(rows, cols, False, True)\n"
        "        t.test_products(rows, cols, True, False)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
