"""A seed, and one thread: the tensors here are small."""

import pytest
import torch
from swap.swap_models import make_data


@pytest.fixture(autouse=True)
def _seed_and_thread():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data():
    return make_data()
