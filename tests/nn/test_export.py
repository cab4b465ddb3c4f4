"""``torch.export``: one program for graphs of every size, without a number of nodes or edges built in."""

import pytest
import torch
from torch.export import Dim

from pyg_nsa import HeteroNSA, HeteroNSAConv, NSAConv

pytestmark = pytest.mark.long

TO, BACK = ("a", "to", "b"), ("b", "back", "a")


class Called(torch.nn.Module):
    """A layer of dictionaries, called with tensors: torch.export names sizes by argument."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, a, b, to, back, weight):
        return self.layer({"a": a, "b": b}, {TO: to, BACK: back}, edge_attr_dict={TO: weight})


def graph(a, b, to, back, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def index(sources, targets, edges):
        ends = [torch.randint(n, (edges,), generator=generator) for n in (sources, targets)]
        return torch.stack(ends)

    rows = (torch.randn(a, 8, generator=generator), torch.randn(b, 8, generator=generator))
    return *rows, index(a, b, to), index(b, a, back), torch.randn(to, 1, generator=generator)


def convs(channels):
    return {TO: NSAConv(channels, 8, heads=2, edge_dim=1), BACK: NSAConv(channels, 8, heads=2)}


LAYERS = {
    "HeteroNSAConv": lambda: HeteroNSAConv(convs(8)),
    "HeteroNSA": lambda: HeteroNSA({"a": 8, "b": 8}, 16, convs(16), "MSM", heads=2),
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_program_holds_for_graphs_of_other_sizes(name, strict):
    torch.manual_seed(0)
    layer = Called(LAYERS[name]()).eval()
    sizes = (
        {0: Dim.DYNAMIC},
        {0: Dim.DYNAMIC},
        {1: Dim.DYNAMIC},
        {1: Dim.DYNAMIC},
        {0: Dim.DYNAMIC},
    )
    few = graph(5, 4, 6, 7)
    program = torch.export.export(layer, few, dynamic_shapes=sizes, strict=strict).module()
    # More edges than nodes, fewer edges than nodes, and the one relation larger than the other or smaller.
    for seed, shape in enumerate([(5, 4, 6, 7), (15, 14, 90, 3), (40, 3, 2, 31), (6, 70, 11, 12)]):
        given = graph(*shape, seed)
        expected = layer(*given)
        out = program(*given)
        for node_type, rows in expected.items():
            torch.testing.assert_close(out[node_type], rows)


def test_a_program_is_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    conv = NSAConv(8, 8, heads=2).eval()
    x, edge_index = torch.randn(6, 8), torch.randint(6, (2, 20))
    sizes = ({0: Dim.DYNAMIC}, {1: Dim.DYNAMIC})
    torch.export.save(
        torch.export.export(conv, (x, edge_index), dynamic_shapes=sizes), tmp_path / "conv.pt2"
    )
    program = torch.export.load(tmp_path / "conv.pt2").module()
    x, edge_index = torch.randn(30, 8), torch.randint(30, (2, 9))
    torch.testing.assert_close(program(x, edge_index), conv(x, edge_index))
