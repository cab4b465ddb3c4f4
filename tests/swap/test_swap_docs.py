"""The examples of docs/swap.md run."""

import re
from pathlib import Path

import pytest
import torch

from pyg_nsa import HeteroNSAConv

PAGE = (Path(__file__).parents[2] / "docs" / "swap.md").read_text()


@pytest.mark.filterwarnings("ignore:There exist node types")
def test_the_examples_run(capsys):
    example, batches, explaining = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    namespace = {}
    exec(example, namespace)
    assert namespace["out"].shape == (9, 4)
    assert "Dry run" in capsys.readouterr().out
    assert all(isinstance(conv, HeteroNSAConv) for conv in namespace["model"].convs)
    assert namespace["report"].warnings == ()
    alone = namespace["data"]
    exec(batches, namespace)
    assert namespace["report"].warnings == ()
    model = namespace["model"].eval()
    with torch.no_grad():
        out = model(alone.x_dict, alone.edge_index_dict, {})
        both = model(
            *(getattr(namespace["batch"], f"{n}_dict") for n in ("x", "edge_index", "batch"))
        )
    assert torch.allclose(both, torch.cat([out, out]), atol=1e-5)
    namespace["data"] = alone
    exec(explaining, namespace)
    edge_mask = namespace["explanation"]["paper", "cites", "paper"].edge_mask
    assert edge_mask.shape == (20,)
    assert edge_mask.max() > 0
