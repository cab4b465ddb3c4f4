"""Whatever goes on with an old layer is found, and the model is left as it was."""

import copy
import functools
import types
import weakref
from collections import OrderedDict

import pytest
import torch
from swap.swap_models import COLUMNS
from torch import nn
from torch.nn.parameter import is_lazy
from torch_geometric.nn import HeteroConv, HGTConv, SAGEConv

from pyg_nsa import HeteroNSAConv, SwapError, swap

CITES = ("paper", "cites", "paper")
M = {"pattern": "M", "hidden_channels": 8}


def conv():
    return HeteroConv({CITES: SAGEConv((-1, -1), 8)})


class Model(nn.Module):
    """Calls its layer as ``hold`` made it."""

    def __init__(self, hold, layer=None):
        super().__init__()
        self.conv = conv() if layer is None else layer
        self.lin = nn.LazyLinear(3)
        object.__setattr__(self, "held", hold(self, self.conv))

    def forward(self, x_dict, edge_index_dict):
        return self.lin(self.held(x_dict, edge_index_dict)["paper"])


class Keeper:
    def __init__(self, layer):
        self.kept = layer

    def __call__(self, *args):
        return self.kept(*args)


def keeps_a_default(layer):
    def call(x_dict, edge_index_dict, layer=layer):
        return layer(x_dict, edge_index_dict)

    return call


#: What a model may hold its layer by, and what the message calls it.
HOLDERS = {
    "partial": (lambda m, c: functools.partial(c), "'held', a functools.partial"),
    "bound method": (lambda m, c: c.forward, "'held', a bound method"),
    "closure": (lambda m, c: lambda *args: c(*args), "'held', a function"),
    "default": (lambda m, c: keeps_a_default(c), r"'held.__defaults__', a plain tuple"),
    "object": (lambda m, c: Keeper(c), "'held', a Keeper"),
    "attribute": (lambda m, c: c, "'held', a plain attribute"),
    "nested": (
        lambda m, c: Keeper(OrderedDict(enc=[{"first": c}])).kept["enc"],
        r"'held\[0\]', a plain dict",
    ),
    "weak reference": (lambda m, c: weakref.ref(c), "'held', a weak reference"),
    "module in a list": (
        lambda m, c: [nn.Sequential(c)],
        r"'held\[0\]._modules', a plain dict",
    ),
    "partial in a closure in a dict": (
        lambda m, c: {"f": (lambda f: lambda *args: f(*args))(functools.partial(c))},
        r"'held\['f'\] \(f\)', a functools.partial",
    ),
}


def state(model):
    return {
        name: "lazy" if is_lazy(p) else p.clone()
        for name, p in [*model.named_parameters(), *model.named_buffers()]
    }


def assert_refused(model, match, data=None):
    before, modules = state(model), list(model.modules())
    own = [dict(vars(module)) for module in modules]
    with pytest.raises(SwapError, match=match):
        swap(model, M, data)
    assert list(model.modules()) == modules
    assert [dict(vars(module)) for module in modules] == own
    after = state(model)
    assert list(after) == list(before)
    for name, value in before.items():
        if isinstance(value, str):
            assert after[name] == value, name
        else:  # a bias beside a weight that is lazy may be memory of any content, NaN as well
            torch.testing.assert_close(after[name], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("hold", HOLDERS)
def test_what_else_holds_a_layer_is_refused_without_data(hold):
    make, match = HOLDERS[hold]
    assert_refused(Model(make), rf"^conv: {match}, also holds this layer and would keep the old")


def test_what_looks_the_layer_up_is_no_holder(data):
    for make in (
        lambda m, c: lambda *args: m.conv(*args),
        lambda m, c: types.MethodType(lambda m, *args: m.conv(*args), m),
        lambda m, c: [weakref.ref(m), lambda *args: m.conv(*args)][1],
        lambda m, c: lambda *args: m.conv.forward(*args),
    ):
        model = Model(make)
        report = swap(model, M, data, dry_run=True)
        # The trial calls functions that are not copied with the model; the model has no sizes all the same.
        assert is_lazy(model.conv.convs[CITES].lin_l.weight)
        assert is_lazy(model.lin.weight)
        assert not report.notes
        assert report.rows[0].tried
        swap(model, M, data)
        assert isinstance(model.conv, HeteroNSAConv)
        model(data.x_dict, data.edge_index_dict).sum().backward()
        assert any(p.grad is not None for p in model.conv.parameters())


def test_a_layer_in_itself_is_no_holder():
    layer = conv()
    layer.convs[CITES].parent = weakref.ref(layer)
    layer.me = [layer]
    swap(Model(lambda m, c: None, layer), M, dry_run=True)


_OF_THE_FILE = []


def test_a_layer_that_a_name_of_the_file_holds_is_found_with_data(data):
    model = Model(lambda m, c: lambda *args: _OF_THE_FILE[0](*args))
    _OF_THE_FILE[:] = [model.conv]
    assert_refused(model, "^conv: the swapped model goes on with this layer on the data", data)
    _OF_THE_FILE[:] = [model.conv.forward]
    assert_refused(model, "^conv: the swapped model goes on with this layer on the data", data)
    _OF_THE_FILE[:] = [lambda *args: model.conv(*args)]
    swap(model, M, data)


def test_a_forward_that_catches_all_errors_does_not_hide_an_old_layer(data):
    def call(*args):
        try:
            return _OF_THE_FILE[0](*args)
        except Exception:
            return {"paper": torch.zeros(24, 8)}

    model = Model(lambda m, c: call)
    _OF_THE_FILE[:] = [model.conv]
    assert_refused(model, "goes on with this layer", data)


def test_a_replacement_that_is_not_called(data):
    class Cached(Model):
        calls = 0

        def forward(self, x_dict, edge_index_dict):
            type(self).calls += 1
            return self.conv(x_dict, edge_index_dict) if self.calls % 2 else None

    assert_refused(
        Cached(lambda m, c: None), "^conv: the model called this layer on the data, and", data
    )


def test_a_forward_that_writes_into_its_data_is_tried_twice_on_the_same(data):
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv = nn.Linear(COLUMNS["paper"], 8), conv()

        def forward(self, data):
            data["paper"].x = self.first(data["paper"].x)
            for t, x in self.conv(data.x_dict, data.edge_index_dict).items():
                data[t].x = x
            return data

    x = data["paper"].x
    swap(Writes(), M, data)
    assert data["paper"].x is x
    swap(Writes(), M, (data,))
    swap(Writes(), M, {"data": data})
    assert data["paper"].x is x


def test_a_layer_that_lacks_a_field_is_rehearsed_without_it(data):
    config = {"edges": [{"edge_type": list(CITES), "kind": "stoichiometry_bias"}]}
    model = Model(lambda m, c: lambda *args: m.conv(*args))
    (warning,) = swap(model, config, data, dry_run=True).warnings
    assert "stoichiometry" in warning
    model = Model(lambda m, c: lambda *args: _OF_THE_FILE[0](*args))
    _OF_THE_FILE[:] = [model.conv]
    with pytest.raises(SwapError, match="goes on with this layer"):
        swap(model, config, data)


# ---- what a subclass adds ----------------------------------------------------------------------------------------------------


class WithLin(HeteroConv):
    def __init__(self):
        super().__init__({CITES: SAGEConv((-1, -1), 8)})
        self.lin = nn.Linear(8, 2)


class WithMethod(HeteroConv):
    def __init__(self):
        super().__init__({CITES: SAGEConv((-1, -1), 8)})
        self.factor = 2

    def scaled(self, *args):
        return {t: self.factor * x for t, x in self(*args).items()}


class WithGate(HGTConv):
    def __init__(self):
        super().__init__(-1, 8, (["paper"], [CITES]))
        self.gate = nn.Parameter(torch.zeros(8))


class UsesLin(Model):
    def forward(self, x_dict, edge_index_dict):
        return self.conv.lin(self.conv(x_dict, edge_index_dict)["paper"])


class UsesMethod(Model):
    def forward(self, x_dict, edge_index_dict):
        return self.conv.scaled(x_dict, edge_index_dict)["paper"]


class UsesGate(Model):
    def forward(self, x_dict, edge_index_dict):
        only = {"paper": x_dict["paper"]}
        return self.conv.gate * self.conv(only, {CITES: edge_index_dict[CITES]})["paper"]


class CallsOnly(Model):
    def forward(self, x_dict, edge_index_dict):
        return self.conv(x_dict, edge_index_dict)["paper"]


def nothing(model, layer):
    return None


@pytest.mark.parametrize(
    ("make", "layer", "name"),
    [
        (UsesLin, WithLin, "WithLin has lin besides what a HeteroConv has"),
        (UsesMethod, WithMethod, "WithMethod has factor, scaled besides"),
        (UsesGate, WithGate, "WithGate has gate besides what a HGTConv has"),
    ],
)
def test_what_the_model_uses_of_a_subclass_is_refused_with_data(make, layer, name, data):
    assert_refused(
        make(nothing, layer()),
        rf"^the swapped model fails on this data: AttributeError: .*; conv: its class {name}",
        data,
    )


def test_parts_of_a_subclass_are_refused_without_data_and_noted_with_it(data):
    for layer in (WithLin(), WithGate()):
        assert_refused(Model(nothing, layer), "^conv: its class .*; pass data=")
    plain = conv()
    plain.lin = nn.Linear(8, 2)
    assert_refused(Model(nothing, plain), "^conv: its HeteroConv has lin besides")
    report = swap(CallsOnly(nothing, WithLin()), M, data)
    assert not report.warnings
    assert any("WithLin has lin besides" in note for note in report.rows[0].notes)


def test_other_names_of_a_subclass_are_warned_of_without_data(data):
    (warning,) = swap(CallsOnly(nothing, WithMethod()), M).warnings
    assert "its class WithMethod has factor, scaled besides" in warning
    report = swap(CallsOnly(nothing, WithMethod()), M, data)
    assert not report.warnings
    assert any("factor, scaled" in note for note in report.rows[0].notes)


def test_a_plain_layer_has_nothing_added_and_draws_no_random_numbers():
    for layer in (conv(), HGTConv(-1, 8, (["paper"], [CITES]))):
        report = swap(Model(nothing, copy.deepcopy(layer)), M, dry_run=True)
        assert not report.warnings
        assert not any("besides" in note for note in report.rows[0].notes)


def test_a_forward_of_one_instance_is_its_own():
    layer = conv()
    layer.forward = lambda *args: {"paper": None}
    model = nn.ModuleList([layer, conv()])
    report = swap(model, M)
    assert [row.path for row in report.rows] == ["1"]
    assert "with a forward of its own" in report.notes[0]
