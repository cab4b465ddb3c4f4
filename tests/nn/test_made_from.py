"""Modules that say in their state dict what they were made from."""

from __future__ import annotations

import copy
import io
import json
import pickle

import pytest
import torch
import torch.distributed
from torch_geometric.nn import HeteroConv, SAGEConv, SumAggregation

from pyg_nsa import (
    CheckpointMismatchError,
    EdgeKind,
    EdgeTerm,
    HeteroNSA,
    HeteroNSAConv,
    build_operator,
    describe_checkpoint,
    load_config,
)
from pyg_nsa.registry import Registry

AA, AB = ("a", "r", "a"), ("a", "s", "b")
METADATA = (["a", "b"], [AA, AB])
KEY = "made_from._extra_state"


def config(**more):
    edges = [
        {"edge_type": list(AA), "kind": "adjacency_mask"},
        {"edge_type": list(AB), "kind": "incidence_mask"},
    ]
    return {"hidden_channels": 8, "heads": 2, "in_channels": 4, "edges": edges, **more}


def call():
    x = {"a": torch.ones(3, 4), "b": torch.ones(2, 4)}
    return x, {AA: torch.tensor([[0, 1], [1, 2]]), AB: torch.tensor([[0, 1], [1, 0]])}


def saved(module):
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


MAKERS = {
    "bare": lambda: HeteroNSAConv.from_config(config(pattern=None)),
    "stack": lambda: HeteroNSAConv.from_config(config(pattern="MS")),
    "hetero_nsa": lambda: build_operator(config(), METADATA),
    "hetero_conv": lambda: build_operator(config(operator="hetero_conv", pattern=None), METADATA),
    "hgt": lambda: build_operator(config(operator="hgt", pattern="M"), METADATA),
}
pytestmark = pytest.mark.filterwarnings("ignore:There exist node types")


@pytest.mark.parametrize("name", MAKERS)
def test_a_built_module_says_its_configuration(name):
    module = MAKERS[name]()
    state = saved(module)
    (made,) = describe_checkpoint(state).values()
    assert [part.name for part in made.edges.values()] == ["adjacency_mask", "incidence_mask"]
    operator = name if name in ("hetero_conv", "hgt") else "hetero_nsa"
    assert (made.operator.name, made.operator.distribution) == (operator, "pyg-nsa")
    assert {part.distribution for part in made.parts} == {"pyg-nsa"}
    assert {part.revision for part in made.parts} == {1}
    assert {part.api for part in made.parts} == {(1, 0)}
    again = load_config(made.config)
    fresh = build_operator(again, METADATA)
    assert fresh.load_state_dict(state).missing_keys == []
    # The entry stands in front of the parameters, so nothing is written where it does not fit.
    assert next(iter(state)).endswith(KEY)
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_modules_made_in_python_say_their_kinds():
    stack = HeteroNSA(4, 8, {AA: "adjacency_mask", AB: "incidence_mask"}, "M", heads=2)
    (made,) = describe_checkpoint(stack.state_dict()).values()
    assert made.config is None and made.operator is None and made.heads == 2
    HeteroNSA(4, 8, {AA: "adjacency_mask", AB: "incidence_mask"}, "M", heads=2).load_state_dict(
        saved(stack)
    )
    mixed = HeteroNSAConv({AA: "adjacency_mask", AB: SAGEConv((4, 4), 8)}, hidden_channels=8)
    (made,) = describe_checkpoint(mixed.state_dict()).values()
    assert made.edges[AB] is None
    # From a configuration or not, the same kinds are the same module.
    built = HeteroNSAConv.from_config(config(pattern=None))
    by_hand = HeteroNSAConv(
        {AA: "adjacency_mask", AB: "incidence_mask"}, hidden_channels=8, in_channels=4, heads=2
    )
    built.load_state_dict(by_hand.state_dict())
    by_hand.load_state_dict(built.state_dict())


def test_conv_modules_alone_keep_hetero_convs_state_dict():
    ours, theirs = (cls({AB: SAGEConv((4, 4), 8)}) for cls in (HeteroNSAConv, HeteroConv))
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize("name", MAKERS)
def test_state_dicts_without_the_entry_still_load(name):
    module = MAKERS[name]()
    old = {key: value for key, value in module.state_dict().items() if not key.endswith(KEY)}
    assert len(old) == len(module.state_dict()) - 1
    result = MAKERS[name]().load_state_dict(old, strict=True)
    assert result.missing_keys == result.unexpected_keys == []


def changed(**more):
    edges = [
        {"edge_type": list(AA), "kind": more.pop("kind", "adjacency_mask")},
        {"edge_type": list(more.pop("edge_type", AB)), "kind": "incidence_mask"},
    ]
    return {**config(pattern=None), "edges": edges, **more}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"kind": "all_pairs"}, "other_kind"),
        ({"edge_type": ("a", "t", "b")}, "other_edge_types"),
        ({"heads": 4}, "other_heads"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_written(change, code):
    state = saved(MAKERS["bare"]())
    module = HeteroNSAConv.from_config(changed(**change))
    before = {name: p.clone() for name, p in module.named_parameters()}
    for strict in (True, False):
        with pytest.raises(CheckpointMismatchError) as caught:
            module.load_state_dict(state, strict=strict)
        assert code in {problem.code for problem in caught.value.problems}
        assert isinstance(caught.value, RuntimeError)  # as all that load_state_dict raises
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name])
    text = str(caught.value)
    assert text.startswith("the checkpoint was written by another module than this one:\n")
    way_out = "To load the parameters all the same, remove 'made_from._extra_state' from the state dict first."
    assert text.endswith(way_out)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.problems) == (text, caught.value.problems)
    del state[KEY]
    module.load_state_dict(state, strict=False)


class OneToOne(EdgeTerm):
    def pairs(self, inputs):
        return inputs.edges_from_index("edge_index")


def with_kind(revision):
    registry = Registry()
    kind = EdgeKind(
        name="one_to_one",
        build=lambda context, options: OneToOne(),
        summary="It.",
        requires=("edge_index",),
        revision=revision,
    )
    registry.register(kind)
    return HeteroNSAConv(
        {AA: "one_to_one"}, hidden_channels=8, in_channels=4, heads=2, registry=registry
    )


def test_another_revision_is_named():
    state = saved(with_kind(1))
    with_kind(1).load_state_dict(state)
    with pytest.raises(
        CheckpointMismatchError,
        match=r"\(a, r, a\): the checkpoint has edge kind 'one_to_one' \(registered by hand, revision 1\), this module has "
        r"'one_to_one' \(registered by hand, revision 2\); with another revision the same parameters give other numbers: register",
    ):
        with_kind(2).load_state_dict(state)


def test_a_renamed_kind_reads_its_older_checkpoints():
    def made(name, **more):
        registry = Registry(discover=False)
        kind = EdgeKind(name=name, build=lambda c, o: OneToOne(), summary="One to one.", **more)
        registry.register(kind)
        return HeteroNSAConv(
            {AA: name}, hidden_channels=8, in_channels=4, heads=2, registry=registry
        )

    # The kind's registry is its own: the default one does not know it under either name.
    state = saved(made("one_to_one"))
    made("diagonal", aliases=("one_to_one",)).load_state_dict(state)
    with pytest.raises(CheckpointMismatchError, match="'one_to_one'"):
        made("diagonal").load_state_dict(state)


def test_a_missing_plugin_is_named():
    state = saved(with_kind(1))
    module = HeteroNSAConv({AA: "adjacency_mask"}, hidden_channels=8, in_channels=4, heads=2)
    with pytest.raises(CheckpointMismatchError, match="which is not registered; this module has"):
        module.load_state_dict(state)


def test_inside_of_a_model_the_path_is_named():
    class Model(torch.nn.Module):
        def __init__(self, heads):
            super().__init__()
            self.convs = torch.nn.ModuleList(
                [HeteroNSAConv.from_config(config(heads=heads, pattern=p)) for p in (None, "M")]
            )

    state = saved(Model(2))
    assert list(describe_checkpoint(state)) == ["convs.0", "convs.1.stack"]
    with pytest.raises(CheckpointMismatchError, match=r"remove 'convs.0.made_from._extra_state'"):
        Model(4).load_state_dict(state)


def test_copies_pickles_and_compiled_modules():
    module = MAKERS["stack"]()
    state = module.state_dict()
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert describe_checkpoint(other.state_dict()) == describe_checkpoint(state)
        other.load_state_dict(state)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    compiled(*call())
    assert list(describe_checkpoint(compiled.state_dict())) == ["_orig_mod.stack"]
    compiled.load_state_dict(compiled.state_dict())


def test_distributed_modules(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(MAKERS["bare"]())
        assert list(describe_checkpoint(wrapped.state_dict())) == ["module"]
        wrapped.load_state_dict(wrapped.state_dict())
        wrapped(*call())["a"].sum().backward()
    finally:
        torch.distributed.destroy_process_group()


def test_state_dicts_on_another_device_and_of_floats_are_no_obstacle():
    module = MAKERS["bare"]()
    state = module.state_dict()
    MAKERS["bare"]().load_state_dict({name: value.cpu().clone() for name, value in state.items()})
    module.to(torch.float64)
    assert module.state_dict()[KEY].dtype == torch.uint8
    with torch.device("meta"):
        empty = MAKERS["bare"]()
    assert empty.state_dict()[KEY].device.type == "cpu"
    module.load_state_dict({name: value.to("meta") for name, value in state.items()}, assign=True)


def test_thirty_edge_types_are_described_once(monkeypatch):
    from pyg_nsa.checkpoint import MadeOf

    edges = [{"edge_type": ["a", f"r{i}", "b"], "kind": "incidence_mask"} for i in range(30)]
    module = HeteroNSAConv.from_config(config(pattern=None, edges=edges))
    monkeypatch.setattr(MadeOf, "to_json", lambda self: pytest.fail("encoded again"))
    monkeypatch.setattr(MadeOf, "from_json", lambda text: pytest.fail("decoded to be the same"))
    module.load_state_dict(module.state_dict())
    assert module.state_dict()[KEY].numel() < 20_000


def test_a_plugins_own_use_of_the_name_is_left_alone():
    class Busy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.made_from = torch.nn.Linear(2, 2)

    from pyg_nsa.config import HeteroNSAConfig
    from pyg_nsa.nn.made_from import describe_config

    module = Busy()
    described = HeteroNSAConfig.model_validate(config())
    describe_config(module, described, Registry())
    assert list(module.state_dict()) == ["made_from.weight", "made_from.bias"]


# --- options --------------------------------------------------------------------------------------


def with_options(options, **more):
    edges = [
        {"edge_type": list(AA), "kind": "adjacency_mask", "options": options},
        {"edge_type": list(AB), "kind": "incidence_mask"},
    ]
    return config(edges=edges, **more)


@pytest.mark.parametrize("pattern", [None, "MS"])
def test_other_options_are_warned_of(pattern):
    module = HeteroNSAConv.from_config(with_options({"symmetrize": True}, pattern=pattern))
    other = with_options({"self_loops": True}, pattern=pattern, aggr="max")
    again = HeteroNSAConv.from_config(other)
    with pytest.warns(UserWarning, match="may give other results") as caught:
        again.load_state_dict(saved(module))
    (one,) = caught
    where = "stack: " if pattern else ""
    assert str(one.message) == (
        f"{where}the parameters fit, but may give other results, since options differ:\n"
        "    the checkpoint has aggr='sum', this module has aggr='max'\n"
        "    (a, r, a): the checkpoint has symmetrize=True, self_loops=False, this module has symmetrize=False, "
        "self_loops=True\n"
        "Build the module with the checkpoint's options, unless the change is meant."
    )
    assert all(
        torch.equal(p, q) for p, q in zip(module.parameters(), again.parameters(), strict=True)
    )


def test_other_options_of_modules_made_in_python_and_of_other_operators():
    one, two = (
        HeteroNSA(4, 8, {AA: "adjacency_mask", AB: "incidence_mask"}, "M", heads=2, aggr=aggr)
        for aggr in ("sum", SumAggregation())
    )
    with pytest.warns(UserWarning, match="aggr='sum', this module has aggr='SumAggregation'"):
        two.load_state_dict(saved(one))
    sums, largest = (
        build_operator(config(operator="hetero_conv", pattern=None, aggr=aggr), METADATA)
        for aggr in ("sum", "max")
    )
    with pytest.warns(UserWarning, match="aggr='sum', this module has aggr='max'"):
        largest.load_state_dict(saved(sums))


def test_what_acts_in_training_alone_may_differ(recwarn):
    edges = [{"edge_type": list(AA), "kind": "pyg_conv"}]
    for options in (
        [{"edge_dropout": 0.5}, {}],
        [{"conv": "GATv2Conv", "args": {"dropout": p}} for p in (0.1, 0.9)],
    ):
        one, two = (
            HeteroNSAConv.from_config(
                config(edges=[{**edges[0], "options": o}], pattern=None)
                if "conv" in o
                else with_options(o, pattern=None)
            )
            for o in options
        )
        two.load_state_dict(saved(one))
    assert not [w for w in recwarn if "options differ" in str(w.message)]


def test_an_entry_of_before_options_were_written_says_nothing_of_them(recwarn):
    module = HeteroNSAConv.from_config(with_options({"symmetrize": True}, pattern=None))
    state = saved(module)
    plain = json.loads(bytes(state[KEY].tolist()))
    assert plain["edges"][0].pop("options")["symmetrize"] is True
    assert plain["edges"][1].pop("options") and plain.pop("aggr") == "sum"
    state[KEY] = torch.frombuffer(bytearray(json.dumps(plain).encode()), dtype=torch.uint8)
    other = HeteroNSAConv.from_config(with_options({}, pattern=None, aggr="max"))
    other.load_state_dict(state)
    assert not [w for w in recwarn if "options differ" in str(w.message)]
