"""The example of docs/swap.md runs."""

import re
from pathlib import Path

import pytest

from pyg_nsa import HeteroNSAConv

PAGE = (Path(__file__).parents[2] / "docs" / "swap.md").read_text()


@pytest.mark.filterwarnings("ignore:There exist node types")
def test_the_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    namespace = {}
    exec(example, namespace)
    assert namespace["out"].shape == (9, 4)
    assert "Dry run" in capsys.readouterr().out
    assert all(isinstance(conv, HeteroNSAConv) for conv in namespace["model"].convs)
    assert namespace["report"].warnings == ()
