"""Sound kinds and operators that ask for little, leave out edges, or leave a parameter unused: what the kit says of them."""

import faulty_kinds as faulty
import pytest
import torch
from torch_geometric.nn import Linear

from pyg_nsa import EdgeSet, EdgeTerm, HeteroNSAConv, Operator, Options
from pyg_nsa.testing.edge_kinds import EDGE_KIND_CHECKS, edge_kind_suite
from pyg_nsa.testing.operators import operator_suite

QUICK = [check for check in EDGE_KIND_CHECKS if not check.name.startswith("compiles")]


class FromOptions(Options):
    least: float = 0.1
    "Edges with a smaller weight are left out."


class Threshold(EdgeTerm):
    """A weight decides whether an edge counts, and has no other effect."""

    def __init__(self, context, options):
        super().__init__()
        self.least = options.least

    def pairs(self, inputs):
        kept = inputs.field("edge_index")[:, inputs.edge_attr("weight") >= self.least]
        return EdgeSet.from_edge_index(inputs.rows(kept), inputs.src.num_rows, inputs.dst.num_rows)


class Nearest(EdgeTerm):
    """The source next to each target, by positions of nodes: no edges are read."""

    def __init__(self, context, options):
        super().__init__()

    def pairs(self, inputs):
        src, dst = inputs.field("src_pos"), inputs.field("dst_pos")
        far = torch.cdist(dst, src)
        graphs = [self.graphs(layout) for layout in (inputs.dst, inputs.src)]
        far = far.masked_fill(graphs[0][:, None] != graphs[1], torch.inf)
        index = torch.stack([far.argmin(1), torch.arange(len(dst))])
        return EdgeSet.from_edge_index(index, len(src), len(dst))

    def graphs(self, layout):
        if layout.row_ptr is None:
            return torch.zeros(layout.num_rows, dtype=torch.long)
        return torch.arange(len(layout.row_ptr) - 1).repeat_interleave(layout.row_ptr.diff())


def threshold():
    return faulty.kind(
        Threshold,
        options=FromOptions,
        produces=frozenset({"mask"}),
        requires=("edge_index", "weight"),
        inputs=None,
    )


def test_the_field_of_a_hard_mask_has_no_gradient():
    suite = edge_kind_suite(threshold(), checks=QUICK)
    found = {r.check: r for r in suite.results()}
    assert [r for r in found.values() if r.status == "failed"] == []
    for check in ("gradients", "training_gradients"):
        assert found[check].status == "not_applicable"
        assert (
            "attribute weight: what decides the pairs alone has no gradient" in found[check].reason
        )


def test_a_bias_without_effect_is_still_a_failure():
    class Nothing(faulty.SoundTerm):
        def bias(self, inputs, edges):
            return super().bias(inputs, edges) * 0

    result = edge_kind_suite(faulty.kind(Nothing), checks=QUICK).outcome("gradients").result
    assert result.status == "failed"
    assert (
        "none of these has any effect on the rows: parameter rate, attribute weight"
        in result.message
    )


def test_edges_that_a_kind_leaves_out_are_told_to_be_kept():
    suite = edge_kind_suite(threshold(), options=[{"least": 0.9}], checks=QUICK)
    message = suite.outcome("direction").result.message
    assert "does not depend on source" in message
    assert (
        "If it leaves out edges by the values of weight (small weights, sources later than targets), pass make_fields with "
        "values that keep every edge"
    ) in message

    def heavy(options, edge_index, num_nodes):
        return {"weight": options.least + torch.rand(edge_index.size(1))}

    kept = edge_kind_suite(threshold(), options=[{"least": 0.9}], make_fields=heavy, checks=QUICK)
    assert kept.outcome("direction").result.status == "passed"


def test_a_kind_that_reads_no_edges():
    def positions(options, edge_index, num_nodes):
        return {
            f"{end}_pos": torch.randn(n, 2)
            for end, n in zip(("src", "dst"), num_nodes, strict=True)
        }

    kind = faulty.kind(
        Nearest,
        options=faulty.NoOptions,
        produces=frozenset({"mask"}),
        requires=("src_pos", "dst_pos"),
        inputs=None,
    )
    results = edge_kind_suite(kind, make_fields=positions, checks=QUICK).results()
    assert [r for r in results if r.status == "failed"] == []
    found = {r.check: r for r in results}
    for check in ("direction", "edge_order", "isolated_nodes", "deleted_nodes"):
        assert found[check].status == "not_applicable"
        assert found[check].reason.startswith(
            "the kind asks for no field with edges (…_index or …_mask)"
        )
    assert found["batch"].status == "passed"


@pytest.mark.parametrize("name", ["w", "u"])
def test_a_parameter_that_no_call_uses(name):
    def build(context, options):
        config = context.config.model_copy(update={"operator": "hetero_nsa"})
        module = HeteroNSAConv.from_config(config, registry=context.registry)
        module.root = torch.nn.ModuleDict({name: Linear(context.in_channels[name], 8)})
        return module

    operator = Operator(name="rooted", build=build, summary="A root weight.", api=(1, 0))
    result = operator_suite(operator).outcome("lazy_channels").result
    assert result.status == "failed"
    assert (
        f"after the first call root.{name}.weight still waits for its size: no call uses it"
        in result.message
    )
