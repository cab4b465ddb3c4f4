"""Each mistake is found by the check that is named after it."""

import dataclasses

import faulty_kinds as faulty
import pytest

from pyg_nsa.testing import check_edge_kind
from pyg_nsa.testing.edge_kinds import EDGE_KIND_CHECKS, edge_kind_suite

# Compiling takes most of the time, and says nothing about a mistake of another sort.
QUICK = [check for check in EDGE_KIND_CHECKS if not check.name.startswith("compiles")]
# Without these there is no module to check, which the kit says too.
BEFORE_MODULES = {"declaration", "default_options", "builds"}


def no_options(term, **changes):
    return faulty.kind(
        term, options=faulty.NoOptions, produces=frozenset({"mask"}), inputs=None, **changes
    )


def categories(term):
    return faulty.kind(
        term, options=faulty.NoOptions, inputs=None, requires=("edge_index", "edge_type")
    )


def refusing(error, both):
    class Refusing(faulty.SoundTerm):
        def __init__(self, context, options):
            if both or context.edge_type[0] != context.edge_type[2]:
                raise error
            super().__init__(context, options)

    return faulty.kind(Refusing)


def within(build):
    """Refuses edge types between two node types."""

    def refusing(context, options):
        if context.edge_type[0] != context.edge_type[2]:
            raise ValueError("within one node type only")
        return build(context, options)

    return refusing


# What is wrong, the checks that fail, and what the first one says.
MISTAKES = {
    "reversed direction": (
        faulty.kind(faulty.Reversed),
        ["direction"],
        "target 0 depends on source 1, but all edges lead from lower numbers to higher ones",
    ),
    "a mean over a batch": (faulty.kind(faulty.Leaking), ["batch"], "graph 0 of a batch"),
    "pairs across a batch": (no_options(faulty.LeakingPairs), ["batch"], "leaks between graphs"),
    "numbers of rows": (
        faulty.kind(faulty.ParityOfNodes),
        ["node_order"],
        "the same graph with its nodes in another order gives other rows",
    ),
    "pairs to higher numbers only": (
        no_options(faulty.ToHigherNumbers),
        ["node_order"],
        "something follows from the numbers of nodes",
    ),
    "the place among sources": (
        faulty.kind(faulty.FirstSources),
        ["node_order"],
        "the first source",
    ),
    "a convolution that compares numbers": (
        faulty.message_kind(faulty.NumbersConv),
        ["node_order"],
        "the same graph with its nodes in another order gives other rows",
    ),
    "a detached bias": (
        faulty.kind(faulty.Detached),
        ["gradients"],
        "parameter rate gets no gradient: it is unused or detached",
    ),
    "a detached attribute": (
        faulty.kind(faulty.DetachedAttribute),
        ["gradients"],
        "the gradient of attribute weight says 0 where finite differences say",
    ),
    "a wrong gradient": (
        faulty.kind(faulty.WrongGradient),
        ["gradients"],
        "the gradient of parameter rate says",
    ),
    "random pairs": (
        faulty.kind(faulty.RandomPairs),
        ["deterministic"],
        "the same call gives other rows: something random",
    ),
    "an option without description": (
        faulty.kind(options=faulty.UndescribedOptions),
        ["options_described"],
        "no description for UndescribedOptions.sharpness; write a string below the field",
    ),
    "an option without default": (
        faulty.kind(options=faulty.NoDefaultOptions),
        ["default_options"],
        "NoDefaultOptions() fails: no default for k",
    ),
    "unknown options accepted": (
        faulty.kind(options=faulty.LooseOptions),
        ["unknown_option"],
        "the unknown key 'symmetrize_' is not refused",
    ),
    "an option that JSON changes": (
        faulty.kind(options=faulty.TupleOptions),
        ["round_trip"],
        "TupleOptions comes back from JSON as",
    ),
    "a crash without edges": (
        faulty.kind(faulty.CrashesWhenEmpty),
        ["empty_relation"],
        "faulty_kinds.py:",
    ),
    "no gradient without edges": (
        faulty.kind(faulty.NoGradientWhenEmpty),
        ["empty_relation"],
        "rate has no gradient, which distributed training waits for",
    ),
    "attributes in the order of the edges": (
        faulty.kind(faulty.InEdgeOrder),
        ["edge_order"],
        "the same edges in another order",
    ),
    "duplicates dropped": (
        faulty.kind(faulty.DropsDuplicates, options=faulty.DirectedOptions),
        ["duplicate_edges"],
        "not one pair with their attributes summed (edges.coalesce does it; attributes: weight)",
    ),
    "bias in half precision": (
        faulty.kind(faulty.HalfPrecision),
        ["dtypes"],
        "with a layer and attributes in torch.float32 bias() is torch.float16",
    ),
    "bias in float32 always": (
        faulty.kind(faulty.AlwaysFloat32),
        ["dtypes"],
        "with a layer and attributes in torch.float64 bias() is torch.float32",
    ),
    "bias of one column": (
        faulty.kind(faulty.OneColumn),
        ["produces"],
        "bias() must be [pairs, heads] = [12, 3], got [12, 1]",
    ),
    "a bias row too few": (
        faulty.kind(faulty.BiasOfEdges),
        ["produces"],
        "bias() must be [pairs, heads] = [12, 3], got [11, 3]",
    ),
    "a bias that was not declared": (
        faulty.kind(produces=frozenset({"mask"})),
        ["produces"],
        "bias() returned a bias, but produces does not declare 'bias'",
    ),
    "a declared bias that does not come": (
        faulty.kind(faulty.NoBias),
        ["produces"],
        "bias() returned None, but produces declares 'bias'",
    ),
    "pairs that are a tensor": (
        faulty.kind(faulty.NoPairs),
        ["produces"],
        "pairs() must return an EdgeSet, got Tensor",
    ),
    "unsorted pairs": (
        faulty.kind(faulty.UnsortedPairs),
        ["produces"],
        "not unique and sorted by (query, key)",
    ),
    "state from the first graph": (
        faulty.kind(faulty.KeepsState),
        ["stateless"],
        "depend on which graphs went before it",
    ),
    "state that counts": (faulty.kind(faulty.CountsCalls), ["stateless"], "is kept in the module"),
    "a branch on values in bias()": (
        faulty.kind(faulty.NotCompiled),
        ["compiles"],
        "raised U",
    ),
    "a branch on values in pairs()": (
        faulty.kind(faulty.PairsNotCompiled, options=faulty.DirectedOptions),
        ["compiles_pairs"],
        "raised U",
    ),
    "values of nodes in slots of no pair": (
        faulty.kind(faulty.ValuesOfNodes),
        ["compiles_pairs"],
        "is out of bounds for dimension 0 with size 7; in a compiled graph an EdgeSet keeps a slot for each edge",
    ),
    "bias() needs pairs() of its own": (
        faulty.kind(faulty.PairsInSelf),
        ["shared_pairs"],
        "bias() of a second layer fails with the pairs of the first: AttributeError",
    ),
    "a seed of torch": (
        faulty.kind(faulty.SeedsTorch),
        ["global_state"],
        "build seeds torch's random numbers, of the whole program",
    ),
    "a seed of Python": (
        faulty.kind(faulty.SeedsPython),
        ["global_state"],
        "a call in evaluation mode changes the random numbers of Python",
    ),
    "numbers of NumPy": (
        faulty.kind(faulty.DrawsWithNumPy),
        ["global_state"],
        "build changes the random numbers of NumPy; torch's seed decides",
    ),
    "a default dtype": (
        faulty.kind(faulty.SetsDefaultDtype),
        ["global_state"],
        "build changes torch.get_default_dtype(); it is a setting of the whole program",
    ),
    "numbers drawn in vain": (
        faulty.kind(faulty.DrawsInVain),
        ["deterministic"],
        "a call draws random numbers in evaluation mode, although they have no effect",
    ),
    "pairs written to": (
        faulty.kind(faulty.WritesToPairs),
        ["inputs_unchanged"],
        "bias() changes edges.row, and other relations",
    ),
    "a field replaced": (
        faulty.kind(faulty.ReplacesField),
        ["inputs_unchanged"],
        "a call changes inputs.fields: weight",
    ),
    "parameters in a list": (
        faulty.kind(faulty.ParametersInList),
        ["parameters"],
        "term.more holds, of shape [3] has a gradient and is no parameter of the layer",
    ),
    "one parameter for all layers": (
        faulty.kind(faulty.OneParameterForAll),
        ["builds"],
        "two modules that build made share the parameter rate",
    ),
    "options written to": (
        faulty.kind(faulty.SortsOptions, options=faulty.ListOptions),
        ["builds"],
        "build changes the options that it gets",
    ),
    "a bias that is kept": (
        faulty.kind(faulty.KeepsBias),
        ["pickled"],
        "after a call convs.<node___joins___node>.term.last holds what it computed",
    ),
    "the sum of categories": (
        categories(faulty.SummedCategories),
        ["duplicate_edges"],
        "edges that occur twice fail with IndexError: ",
    ),
    "the last of two categories": (
        categories(faulty.LastCategory),
        ["duplicate_edges"],
        "with different values of edge_type, the order of the edges changes the rows",
    ),
    "inputs written to": (
        faulty.kind(faulty.WritesToInputs),
        ["inputs_unchanged"],
        "a call writes to weight_dict[('node', 'joins', 'node')]; work on a copy",
    ),
    "two heads taken for granted": (
        faulty.kind(faulty.TwoHeads),
        ["produces"],
        "bias() must be [pairs, heads] = [12, 3], got [12, 2]",
    ),
    "columns for heads": (
        faulty.kind(faulty.ColumnsForHeads, inputs=lambda options: ("edge_index", "edge_attr")),
        ["produces"],
        "bias() must be [pairs, heads] = [12, 3], got [12, 2]",
    ),
    "inputs written to in training": (
        faulty.kind(faulty.WritesToInputsInTraining),
        ["training_inputs"],
        "in training mode: a call writes to weight_dict[('node', 'joins', 'node')]; work on a copy",
    ),
    "an attribute detached in training": (
        faulty.kind(faulty.DetachedInTraining),
        ["training_gradients"],
        "in training mode: the gradient of attribute weight says 0 where",
    ),
    "no backward pass in training": (
        faulty.kind(faulty.NoBackwardInTraining),
        ["training_gradients"],
        "modified by an inplace operation",
    ),
    "a largest value over a batch in training": (
        faulty.kind(faulty.LeakingInTraining),
        ["training_batch"],
        "in training mode: graph 0 of a batch gets other rows than alone",
    ),
    "two dtypes under autocast": (
        faulty.kind(faulty.NotUnderAutocast),
        ["autocast"],
        "index_add_(): self (Float) and source (BFloat16)",
    ),
    "digits lost under autocast": (
        faulty.kind(faulty.RoughUnderAutocast),
        ["autocast"],
        "% off those without autocast; compute what is large or small in float32",
    ),
    "a lambda in the module": (
        faulty.kind(faulty.HoldsFunction),
        ["pickled"],
        "torch.save(layer) and torch.load fail: AttributeError: Can't",
    ),
    "sizes needed in build": (
        faulty.kind(faulty.NeedsChannels),
        ["lazy_channels"],
        "with context.in_channels=(-1, -1) it fails: RuntimeError: Trying to create tensor with negative dimension",
    ),
    "other parameters without sizes": (
        faulty.kind(faulty.OtherParameters),
        ["lazy_channels"],
        "other parameters come than with given ones: convs.<node___joins___node>.term.more",
    ),
    "symmetrize ignored": (
        faulty.kind(faulty.IgnoresPairOptions),
        ["pair_options"],
        "with symmetrize=True the reversed pair is missing: query 0, key 1. The host applies edge_dropout alone",
    ),
    "self_loops ignored": (
        faulty.kind(faulty.IgnoresLoops),
        ["pair_options"],
        "with self_loops=True a node's pair with itself is missing: query 0, key 0.",
    ),
    "numbers that are not saved": (
        faulty.kind(faulty.NotSaved),
        ["state_dict"],
        "a new layer with the state dict of another one gives other rows",
    ),
    "a running mean that is not saved": (
        faulty.kind(faulty.RunningMean),
        ["state_dict"],
        "the state dict of one that was called in training mode gives other rows",
    ),
    "a running mean that only the bias shows": (
        faulty.kind(faulty.RunningMeanThatCancels),
        ["state_dict"],
        "the state dict of one that was called in training mode gives other rows, or another bias",
    ),
    "a reset that does nothing": (
        faulty.kind(faulty.NeverReset),
        ["reset_parameters"],
        "reset_parameters leaves parameter rate as training left it",
    ),
    "a reset of some": (
        faulty.kind(faulty.HalfReset),
        ["reset_parameters"],
        "reset_parameters leaves parameter rate as",
    ),
    "no reset": (
        faulty.message_kind(faulty.NoReset),
        ["reset_parameters"],
        "NoReset has no reset_parameters, which reset_parameters of a layer calls",
    ),
    "dead nodes count": (
        faulty.kind(faulty.DeadNodesCount),
        ["deleted_nodes"],
        "rows are not those of the graph without the deleted nodes",
    ),
    "a field kept with the pairs": (
        faulty.kind(faulty.KeepsTypes, inputs=lambda options: ("edge_index", "edge_type")),
        ["same_edges"],
        "a call with other fields and rows over the same tensor of edges gets rows that are left from the call before",
    ),
    "deleted nodes kept with the pairs": (
        faulty.kind(faulty.KeepsTheLiving),
        ["same_edges"],
        "a call with other deleted nodes over the same tensor of edges",
    ),
    "the last relation's field": (
        faulty.kind(faulty.LastWeights),
        ["same_edges"],
        "two relations over one tensor of edges, with other fields and rows, get each other's pairs or bias",
    ),
    "as many targets as sources": (
        faulty.kind(faulty.SquarePairs, options=faulty.DirectedOptions),
        ["bipartite"],
        "default options, edge type (source, to, target): raised ValueError",
    ),
    "numbers of nodes for rows": (
        faulty.kind(faulty.IndexForRows, options=faulty.DirectedOptions),
        ["padding"],
        "graph 1 of a batch with padding rows gets other rows than alone",
    ),
    "the first dimension for nodes": (
        faulty.kind(faulty.FirstDimension, options=faulty.DirectedOptions),
        ["copies"],
        "raised ValueError",
    ),
    "deleted nodes of copies by a row of the batch": (
        faulty.kind(faulty.LivingNodesCount),
        ["copies"],
        "each has deleted nodes of its own fail with IndexError",
    ),
    "deleted nodes of the first copy": (
        faulty.kind(faulty.LivingInTheFirstCopy),
        ["copies"],
        "copy 1 of a graph, with deleted nodes of its own, gets other rows than alone",
    ),
    "a transposed mask": (
        no_options(faulty.TransposedMask, requires=(("edge_index", "adj_mask"),)),
        ["alternatives"],
        "the same edges give other rows as 'adj_mask' than as 'edge_index'",
    ),
    "a field that was not asked for": (
        faulty.kind(inputs=lambda options: ("edge_index",)),
        ["produces"],
        "has no 'weight'; pass weight_dict=",
    ),
    "no field at all": (
        no_options(faulty.LeakingPairs, requires=()),
        ["declaration"],
        "requires is empty, so no field of the edge type would be collected",
    ),
    "an interface of the future": (
        faulty.kind(api=(99, 0)),
        ["declaration"],
        "api=(99, 0) is not spoken by this pyg_nsa",
    ),
    "a summary of two lines": (
        faulty.kind(summary="One.\nTwo."),
        ["declaration"],
        "summary has several lines",
    ),
    "a crash in build": (
        refusing(TypeError("no"), both=False),
        ["builds"],
        "default options, edge type (source, to, target): build raised TypeError: no; refuse",
    ),
    "every edge type refused": (
        refusing(ValueError("not today"), both=True),
        ["builds"],
        "build refuses every edge type:",
    ),
    "no module": (
        faulty.kind(lambda context, options: 3),
        ["builds"],
        "built a int for edge type",
    ),
    "a reversed convolution": (
        faulty.message_kind(faulty.ReversedConv),
        ["direction"],
        "target 0 depends on source 1",
    ),
    "zero over zero": (
        faulty.message_kind(faulty.ZeroOverZero),
        ["isolated_nodes"],
        "rows are NaN or infinite where nodes have no edges",
    ),
    "a mean over all rows": (
        faulty.message_kind(faulty.CentredConv),
        ["direction"],
        "all edges lead from lower numbers to higher ones",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_it_is_found_by_name(mistake):
    kind, names, text = MISTAKES[mistake]
    if names[0] not in ("bipartite", *BEFORE_MODULES):
        kind = dataclasses.replace(kind, build=within(kind.build))  # half of the time
    checks = EDGE_KIND_CHECKS if names[0].startswith("compiles") else QUICK
    results = edge_kind_suite(kind, checks=checks).results()
    failed = {result.check: result for result in results if result.status == "failed"}
    if names[0] in BEFORE_MODULES:
        names = [*names, "coverage"]
    assert list(failed) == names, {name: result.message for name, result in failed.items()}
    assert text in failed[names[0]].message


def test_rows_that_are_not_finite_or_all_zero():
    class Infinite(faulty.SoundTerm):
        def bias(self, inputs, edges):
            return super().bias(inputs, edges) * float("nan")

    class Nothing(faulty.MeanConv):
        def forward(self, x, edge_index):
            return super().forward(x, edge_index) * 0

    for kind, text in (
        (faulty.kind(Infinite), "rows are NaN or infinite"),
        (faulty.message_kind(Nothing), "all rows are zero, although there are edges"),
    ):
        results = edge_kind_suite(kind, checks=QUICK).results()
        (failed,) = [result for result in results if result.status == "failed"]
        assert failed.check == "runs" and text in failed.message


@pytest.mark.parametrize(
    "kind",
    [
        faulty.kind(),
        faulty.kind(faulty.ValuesOfNodesByClamping),
        faulty.message_kind(),
        faulty.kind(faulty.WithinOneType),
        faulty.kind(faulty.RunningMeanInBuffer),
        faulty.kind(faulty.NoiseInTraining),
        faulty.kind(faulty.DrawsInTraining),
        categories(faulty.Categories),
        faulty.kind(faulty.IgnoresPairOptions, options=faulty.DirectedOptions),
    ],
    ids=[
        "weighted",
        "clamped",
        "mean_conv",
        "within",
        "running_mean",
        "noise",
        "dropout",
        "categories",
        "directed",
    ],
)
def test_sound_kinds_pass(kind):
    results = check_edge_kind(kind)
    assert [(r.check, r.message) for r in results if r.status == "failed"] == []
    assert sum(r.status == "passed" for r in results) >= 18


@pytest.mark.parametrize(
    ("term", "why"),
    [
        (faulty.RunningMeanInBuffer, "change convs.<node___joins___node>.term.mean"),
        (faulty.NoiseInTraining, "calls in training mode draw random numbers"),
    ],
)
def test_where_batches_in_training_are_not_compared(term, why):
    suite = edge_kind_suite(faulty.kind(term), checks=QUICK)
    result = suite.outcome("training_batch").result
    assert result.status == "not_applicable" and why in result.reason


def test_every_check_of_graphs_and_training_finds_something():
    found = {name for _, names, _ in MISTAKES.values() for name in names}
    everything = {check.name for check in EDGE_KIND_CHECKS}
    # There is no CUDA device in most places; `runs` is tested on its own.
    assert everything - found == {"runs", "cpu_equals_gpu"}
