"""A plugin's mistake in `pairs` or `bias` says which kind made it, for which edge type, once."""

import traceback

import pytest
import torch

from pyg_nsa import EdgeKind, EdgeSet, EdgeTerm, HeteroNSA, HeteroNSAConv
from pyg_nsa.registry import Registry

RELATION = ("u", "to", "v")
WHOSE = "edge kind 'faulty' for edge type ('u', 'to', 'v')"
CALL = {
    "x_dict": {"u": torch.ones(4, 3), "v": torch.ones(5, 3)},
    "edge_index_dict": {RELATION: torch.tensor([[0, 1, 3], [4, 1, 0]])},
}


class Strange(Exception):
    """Not built from one text, so it can't be made again with another."""

    def __init__(self, code, text):
        super().__init__(code, text)


class Faulty(EdgeTerm):
    def __init__(self, pairs, bias):
        super().__init__()
        self.make = {"pairs": pairs, "bias": bias}

    def pairs(self, inputs):
        make = self.make["pairs"]
        return inputs.edges_from_index("edge_index") if make is None else make(inputs)

    def bias(self, inputs, edges):
        make = self.make["bias"]
        return None if make is None else make(edges)


def faulty(build=HeteroNSAConv, pairs=None, bias=None, **options):
    registry = Registry(discover=False)
    registry.register(
        EdgeKind(
            name="faulty",
            summary="Mistaken.",
            produces={"mask", "bias"},
            requires=("edge_index",),
            build=lambda context, _: Faulty(pairs, bias),
        )
    )
    if build is HeteroNSA:
        return HeteroNSA(3, 8, {RELATION: "faulty"}, "MSM", heads=2, registry=registry, **options)
    kinds = {RELATION: "faulty"}
    return build(kinds, hidden_channels=8, heads=2, registry=registry, **options)


def raises(error):
    def method(*_, **__):
        raise error

    return method


def reindexed(size):
    return lambda inputs: EdgeSet.from_edge_index(inputs.field("edge_index"), *size)


@pytest.mark.parametrize("method", ["pairs", "bias"])
@pytest.mark.parametrize("build", [HeteroNSA, HeteroNSAConv])
def test_an_exception_keeps_its_type_and_gets_one_note(method, build):
    for error in (KeyError("weight"), Strange(3, "unwell")):
        module = faulty(build, **{method: raises(error)})
        for _ in range(2):  # the same object may be raised again
            with pytest.raises(type(error)) as caught:
                module(**CALL)
            assert caught.value is error
            assert error.__notes__ == [f"raised by {method}() of {WHOSE}"]
    text = "".join(traceback.format_exception(error))
    assert text.endswith(f"Strange: (3, 'unwell')\nraised by {method}() of {WHOSE}\n")


def test_preparing_and_an_order_say_it_too():
    error = KeyError("weight")
    module = faulty(HeteroNSA, pairs=raises(error))
    with pytest.raises(KeyError):
        module(**CALL, order_dict={"u": torch.randperm(4)})
    assert error.__notes__ == [f"raised by pairs() of {WHOSE}"]


def test_errors_about_data_say_it_and_read_as_before():
    module = HeteroNSAConv({RELATION: "stoichiometry_bias"}, hidden_channels=8, heads=2)
    with pytest.raises(ValueError, match=r"^edge type .* has no 'stoichiometry'; pass") as caught:
        module(**CALL)
    assert caught.value.__notes__ == [
        "raised by bias() of edge kind 'stoichiometry_bias' for edge type ('u', 'to', 'v')"
    ]


def test_attention_that_fails_is_not_the_kinds(monkeypatch):
    """Around the attention itself there is nothing: its error comes as it is."""
    from pyg_nsa.nn.nsa_conv import NSAConv

    error = RuntimeError("FlexAttention failed")
    monkeypatch.setattr(NSAConv, "forward", raises(error))
    module = faulty(aggr="max")
    with pytest.raises(RuntimeError) as caught:
        module(**CALL)
    assert caught.value is error
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda inputs: inputs.field("edge_index"), r"a tensor of shape \[2, 3\]"),
        (lambda inputs: None, "None"),
        (lambda inputs: [(0, 1)], "list"),
    ],
)
def test_pairs_that_are_no_edge_set(wrong, got):
    text = rf"^{WHOSE}: pairs\(\) must return a pyg_nsa.EdgeSet, got {got}; inputs.edges_from_index"
    text = text.replace("('u', 'to', 'v')", r"\('u', 'to', 'v'\)")
    with pytest.raises(TypeError, match=text) as caught:
        faulty(pairs=wrong)(**CALL)
    assert not hasattr(caught.value, "__notes__")
    assert "EdgeSet.from_edge_index(inputs.rows(index), inputs.src.num_rows" in str(caught.value)
    with pytest.raises(TypeError, match=text):
        faulty(HeteroNSA, pairs=wrong)(**CALL, order_dict={"u": torch.randperm(4)})


def test_pairs_of_other_nodes():
    with pytest.raises(ValueError, match="the pairs are of 5 sources") as caught:
        faulty(pairs=reindexed((5, 6)))(**CALL)
    assert str(caught.value) == (
        f"{WHOSE}: the pairs are of 5 sources and 6 targets, but there are 4 rows of node type 'u' (sources) and 5 of 'v' "
        "(targets)"
    )
    # A pair set that the call brings itself goes through the kind.
    edges = EdgeSet.from_edge_index(torch.tensor([[0], [1]]), 3, 5)
    with pytest.raises(ValueError, match="the pairs are of 3 sources and 5 targets"):
        faulty()(**{**CALL, "edge_index_dict": {RELATION: edges}})


def test_pairs_made_by_hand():
    def beyond(inputs):
        rowptr = torch.tensor([0, 1, 2, 2, 2, 2])
        return EdgeSet(torch.tensor([0, 1]), torch.tensor([0, 900_000]), rowptr, 5, 4)

    with pytest.raises(ValueError, match="col holds 0 to 900000, but must hold 0 to 3") as caught:
        faulty(pairs=beyond)(**CALL)
    assert caught.value.__notes__ == [f"raised by pairs() of {WHOSE}"]


@pytest.mark.parametrize("build", [HeteroNSA, HeteroNSAConv])
@pytest.mark.parametrize(
    ("wrong", "error", "got"),
    [
        (lambda edges: torch.zeros(3), ValueError, "a tensor of shape [3]"),
        (lambda edges: torch.zeros(3, 1), ValueError, "a tensor of shape [3, 1]"),
        (lambda edges: torch.zeros(4, 2), ValueError, "a tensor of shape [4, 2]"),
        (lambda edges: 0.5, TypeError, "float"),
    ],
)
def test_a_bias_that_does_not_fit(build, wrong, error, got):
    with pytest.raises(error) as caught:
        faulty(build, bias=wrong)(**CALL)
    assert str(caught.value) == (
        f"{WHOSE}: bias() must return a tensor of shape [pairs, heads] = [3, 2], or None, got {got}; "
        "edges.coalesce(attribute) brings attributes of edges into the order of the pairs"
    )


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (
            lambda edges: torch.ones(3, 2, dtype=torch.bool),
            TypeError,
            "got torch.bool, torch.strided; if True means that a pair attends: "
            "torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)",
        ),
        (
            lambda edges: torch.ones(3, 2).long(),
            TypeError,
            "got torch.int64, torch.strided; convert it",
        ),
        (lambda edges: torch.ones(3, 2) + 0j, TypeError, "got torch.complex64, torch.strided"),
        (
            lambda edges: torch.ones(3, 2).to_sparse(),
            TypeError,
            "got torch.float32, torch.sparse_coo",
        ),
        (
            lambda edges: torch.ones(3, 2, device="meta"),
            ValueError,
            "bias() is on meta, but the pairs are on cpu; make it of the inputs",
        ),
    ],
    ids=["bool", "int", "complex", "sparse", "device"],
)
def test_a_bias_that_attention_could_not_add(wrong, error, text):
    with torch.no_grad(), pytest.raises(error) as caught:
        faulty(bias=wrong)(**CALL)
    assert str(caught.value).startswith(f"{WHOSE}: bias() ")
    assert text in str(caught.value)


def test_a_bias_of_another_floating_dtype_is_taken():
    faulty(bias=lambda edges: torch.zeros(3, 2).double())(**CALL)
    faulty(bias=lambda edges: torch.zeros(3, 2).bfloat16())(**CALL)


def test_pairs_that_are_missing():
    class Nothing(EdgeTerm):
        pass

    registry = Registry(discover=False)
    kind = EdgeKind(
        name="faulty",
        summary="Mistaken.",
        produces={"mask"},
        build=lambda context, _: Nothing(),
    )
    registry.register(kind)
    module = HeteroNSAConv({RELATION: "faulty"}, hidden_channels=8, heads=2, registry=registry)
    with pytest.raises(NotImplementedError, match="Nothing must override pairs") as caught:
        module(**CALL)
    assert caught.value.__notes__ == [f"raised by pairs() of {WHOSE}"]
