"""HeteroCellNSA: what z_p = z_w - z_i promises, on the textbook model."""

import copy

import pytest
import torch

from pyg_nsa.cell.config import CellConfig
from pyg_nsa.cell.data.batch import Perturbation, PerturbationCollate
from pyg_nsa.cell.models.build import (
    build_embedding,
    build_hetero_conv,
    build_hgt,
    build_model,
    build_no_messages,
)
from pyg_nsa.cell.network.graph import build_graph
from pyg_nsa.cell.network.materialise import perturbed_graph
from pyg_nsa.cell.network.metabolic_model import load_model
from pyg_nsa.cell.report.attention_map import attention_around
from pyg_nsa.errors import ConfigError
from pyg_nsa.load import load_config

EDGES = [
    ["gene", "co_complex", "gene", "adjacency_mask"],
    ["gene", "producer_consumer", "gene", "adjacency_mask"],
    ["gene", "gpr", "reaction", "incidence_mask"],
    ["reaction", "rev_gpr", "gene", "incidence_mask"],
    ["reaction", "rmr", "metabolite", "stoichiometry_bias"],
    ["metabolite", "rev_rmr", "reaction", "stoichiometry_bias"],
]


def make_config(**changes):
    operator = {
        "hidden_channels": 8,
        "heads": 2,
        "pattern": "MSM",
        "sab": {"node_types": ["gene"], "induced_points": None},
        "edges": [{"edge_type": e[:3], "kind": e[3]} for e in EDGES],
    } | changes.pop("operator", {})
    return load_config({"data": {"model": "textbook"}, "operator": operator, **changes}, CellConfig)


@pytest.fixture(scope="module")
def graph():
    return build_graph(load_model("textbook"), features=["degree"])


def make_batch(graph, *deletions):
    items = [
        Perturbation(i, torch.tensor(genes, dtype=torch.long), torch.tensor([0.5, float("nan")]))
        for i, genes in enumerate(deletions)
    ]
    return PerturbationCollate(graph)(items)


DELETION = {"deletion": True, "copies": False}
NODES = {"difference": "nodes", "aggregations": ["mean", "max", "std"]}
MODELS = {
    "hetero_nsa": (build_model, {}),
    "hetero_conv": (build_hetero_conv, {}),
    "hgt": (build_hgt, {}),
    "embedding": (build_embedding, {}),
    "copies and deletion": (build_model, {"deletion": True, "aggregations": ["sum", "max"]}),
    "differences of nodes": (build_model, NODES),
    "differences of nodes of hetero_conv": (build_hetero_conv, NODES),
    "differences of nodes and deletion": (build_model, NODES | {"deletion": True}),
    "deletion": (build_model, DELETION),
    "deletion of hgt": (build_hgt, DELETION),
    "no_messages": (build_no_messages, DELETION),
    "epistasis": (build_model, DELETION | {"epistasis": True}),
}


@pytest.fixture(params=list(MODELS))
def model(request, graph):
    torch.manual_seed(0)
    build, readout = MODELS[request.param]
    model = build(make_config(readout=readout), graph)
    with torch.no_grad():
        model(graph, make_batch(graph, [0]))  # lazy layers take their sizes
    return model.eval()


def test_an_instance_without_deletions_predicts_what_the_head_gives_for_zero(model, graph):
    prediction, z = model(graph, make_batch(graph, [], [3]))
    assert z["z_p"][0].abs().max() < 1e-4
    width = z["z_p"].size(1)
    torch.testing.assert_close(
        prediction[0], model.head(torch.zeros(1, width))[0], rtol=1e-3, atol=1e-4
    )
    assert (prediction[1] - prediction[0]).abs().max() > 1e-5


def test_a_batch_gives_what_single_instances_give(model, graph):
    deletions = ([5], [], [7, 30], [100])
    together, _ = model(graph, make_batch(graph, *deletions))
    for i, genes in enumerate(deletions):
        alone, _ = model(graph, make_batch(graph, genes))
        torch.testing.assert_close(together[i], alone[0], rtol=1e-3, atol=1e-4)


def test_every_parameter_gets_a_gradient(model, graph):
    model.train()
    # One of them from a complex: among the genes of a reaction that has only one there is nothing to attend to.
    member = int(graph["gene", "co_complex", "gene"].edge_index[0, 0])
    # And two that each cut growth off.
    prediction, _ = model(graph, make_batch(graph, [5], [7, 30], [member], [24, 53]))
    prediction.square().sum().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert not missing
    zero = [n for n, p in model.named_parameters() if not p.grad.abs().sum() > 0]
    # A bias that all nodes of the wildtype and the copy share cancels in z_w - z_i; attention's key bias cancels in the softmax.
    assert all("bias" in n for n in zero), zero


def test_the_shared_layout_equals_graphs_of_their_own(graph):
    """HeteroCellNSA's operator on [B, N] copies, against the materialised compact graphs one by one."""
    torch.manual_seed(0)
    config = make_config()
    operator = build_model(config, graph).operator
    batch = make_batch(graph, [5], [7, 30])
    arguments = operator.prepare(graph)
    x_dict = {t: x.expand(2, -1, -1) for t, x in arguments["x_dict"].items()}
    out = operator(**{**arguments, "x_dict": x_dict, "mask_dict": batch.alive_dict})
    for b in range(2):
        for numbering in ("compact", "wildtype"):
            living = {t: alive[b] for t, alive in batch.alive_dict.items()}
            single = perturbed_graph(graph, living, numbering=numbering)
            rows = operator(**operator.collect(single))
            for node_type, alive in batch.alive_dict.items():
                wanted = out[node_type][b][alive[b]]
                got = rows[node_type]
                got = got[single[node_type].mask]
                torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_attention_around_a_knockout(graph):
    torch.manual_seed(0)
    model = build_model(make_config(), graph)
    batch = make_batch(graph, [5])
    with torch.no_grad():
        model(graph, batch)
    table = attention_around(model.eval(), graph, batch)
    assert len(table)
    name = graph["gene"].node_ids[5]
    own = table[(table["source"] == name) | (table["target"] == name)]
    assert len(own)
    assert (own["weight_knockout"] == 0).all()
    assert (own["weight_wildtype"] > 0).all()
    assert table["weight_wildtype"].between(0, 1 + 1e-6).all()


@pytest.mark.parametrize("node_order", ["rcm", "packed"])
def test_the_order_of_the_nodes_inside_changes_nothing_outside(graph, node_order):
    torch.manual_seed(0)
    natural = build_model(make_config(node_order="natural"), graph).double()
    cell_graph = copy.copy(graph).apply(lambda v: v.double() if v.is_floating_point() else v)
    batch = make_batch(graph, [5], [], [7, 30])
    with torch.no_grad():
        natural(cell_graph, batch)  # lazy layers take their sizes
    ordered = build_model(make_config(node_order=node_order), graph).double()
    ordered.load_state_dict(natural.state_dict())  # a checkpoint fits whatever the order
    tables = []
    for model in (natural, ordered):
        prediction, z = model(cell_graph, batch)
        (prediction.sin().sum() + z["z_i"].square().mean()).backward()
        tables.append(attention_around(model.eval(), cell_graph, make_batch(graph, [5])))
    assert "order_dict" not in natural.prepared(cell_graph)
    orders = ordered.prepared(cell_graph)["order_dict"]
    assert not torch.equal(orders["reaction"], torch.arange(graph["reaction"].num_nodes))
    expected, got = (model(cell_graph, batch) for model in (natural, ordered))
    torch.testing.assert_close(got[0], expected[0], rtol=1e-10, atol=1e-10)
    for name, value in expected[1].items():
        torch.testing.assert_close(got[1][name], value, rtol=1e-10, atol=1e-10)
    gradients = dict(natural.named_parameters())
    for name, parameter in ordered.named_parameters():
        wanted = gradients[name].grad
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(
            parameter.grad / scale, wanted / scale, rtol=0, atol=1e-10, msg=name
        )
    # Attention is reported by the graph's own ids.
    ends = ["relation", "source", "target"]
    expected, got = (t.sort_values(ends, ignore_index=True) for t in tables)
    assert len(got) > 20
    assert got[ends].equals(expected[ends])
    for name in ("weight_wildtype", "weight_knockout"):
        assert (got[name] - expected[name]).abs().max() < 1e-10


def test_an_order_is_found_once(graph, monkeypatch):
    from pyg_nsa.nn import hetero_nsa

    model = build_model(make_config(), graph)
    assert model.node_order == "packed"
    order = model.prepared(graph)["order_dict"]
    monkeypatch.setattr(hetero_nsa, "node_orders", None)
    assert model.prepared(graph)["order_dict"] is order
    # On another device the pair sets are built anew, but in the order that is known.
    reference, _, arguments = model._prepared
    model._prepared = (reference, torch.device("meta"), arguments)
    again = model.prepared(graph)
    assert again is not arguments
    assert all(torch.equal(again["order_dict"][t], order[t]) for t in order)
    assert build_hetero_conv(make_config(), graph).node_order == "natural"


def test_it_copies_and_pickles(model, graph, tmp_path):
    batch = make_batch(graph, [5])
    expected, _ = model(graph, batch)
    copied, _ = copy.deepcopy(model)(graph, batch)
    torch.testing.assert_close(copied, expected)
    torch.save(model, tmp_path / "model.pt")
    loaded, _ = torch.load(tmp_path / "model.pt", weights_only=False)(graph, batch)
    torch.testing.assert_close(loaded, expected)


def test_differences_of_nodes_are_pooled_over_the_living(graph):
    """Against a loop over instances, node types, nodes and aggregations."""
    torch.manual_seed(0)
    names = ["sum", "mean", "max", "std"]
    readout = {"difference": "nodes", "aggregations": names}
    model = build_model(make_config(readout=readout), graph).double().eval()
    cell_graph = copy.copy(graph).apply(lambda v: v.double() if v.is_floating_point() else v)
    batch = make_batch(graph, [5], [], [7, 30])
    with torch.no_grad():
        _, z = model(cell_graph, batch)
        rows = model.rows(cell_graph, batch.alive_dict)
    for b in range(3):
        wanted = []
        for t in model.node_types:
            nodes = [i for i, lives in enumerate(batch.alive_dict[t][b].tolist()) if lives]
            change = torch.stack([rows[t][0, i] - rows[t][1 + b, i] for i in nodes])
            spread = (change.square().mean(0) - change.mean(0).square()).clamp(min=1e-5).sqrt()
            spread = torch.where(spread <= 1e-5**0.5, 0.0, spread)  # as PyG has it
            wanted += [change.sum(0), change.mean(0), change.amax(0), spread]
        torch.testing.assert_close(z["z_p"][b], torch.cat(wanted), rtol=1e-9, atol=1e-9)
    assert (z["z_w"] == 0).all() and torch.equal(z["z_p"], -z["z_i"])
    assert z["z_p"][1].abs().max() < 1e-10 < z["z_p"][0].abs().max()


def test_sums_of_differences_leave_out_the_removed_nodes_alone(graph):
    torch.manual_seed(0)
    pooled = build_model(make_config(), graph).eval()
    batch = make_batch(graph, [5], [7, 30])
    with torch.no_grad():
        _, of_sums = pooled(graph, batch)
        nodes = build_model(make_config(readout={"difference": "nodes"}), graph).eval()
        nodes.load_state_dict(pooled.state_dict())
        _, of_nodes = nodes(graph, batch)
        rows = pooled.rows(graph, batch.alive_dict)
    removed = [torch.einsum("bn,nc->bc", (~batch.alive_dict[t]).float(), rows[t][0]) for t in rows]
    removed = torch.cat(removed, dim=-1)
    assert removed.abs().max() > 0.1
    torch.testing.assert_close(of_sums["z_p"], of_nodes["z_p"] + removed, rtol=1e-3, atol=1e-3)


def test_only_copies_cost_copies(graph):
    batch = make_batch(graph, [5], [7, 30], [])
    for readout, copies in (({}, 4), (DELETION, 1)):
        model = build_model(make_config(readout=readout), graph)
        seen = []
        model.operator.register_forward_hook(lambda *call, seen=seen: seen.append(call[2]))
        model(graph, batch)
        assert [rows["gene"].size(0) for rows in seen] == [copies]


def test_mistakes_in_the_configuration_are_named(graph):
    for readout, message in (
        ({"copies": False}, "set readout.deletion or readout.copies to true"),
        ({**DELETION, "difference": "nodes"}, "perturbed copies: set readout.copies: true"),
        ({"difference": "node"}, "difference"),
        (
            {"deletion": True, "epistasis": True},
            "set readout.deletion: true and readout.copies: false",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make_config(readout=readout)
    with pytest.raises(ValueError, match=r"heads=3 does not divide hidden_channels=8"):
        make_config(operator={"heads": 3})
    with pytest.raises(ValueError, match="must be three positive numbers that sum to 1"):
        make_config(data={"model": "textbook", "fractions": [0.5, 0.1, 0.1]})
    edges = [{"edge_type": ["gene", "gprr", "reaction"], "kind": "incidence_mask"}]
    with pytest.raises(
        ValueError, match=r"(?s)no edge type \(gene, gprr, reaction\).*gene, gpr, reaction"
    ):
        build_model(make_config(operator={"edges": edges, "unmatched": "skip", "sab": {}}), graph)
    with pytest.raises(ValueError, match=r"(?s)node_order: 'metis' is not.*natural, rcm, packed"):
        make_config(node_order="metis")
    with pytest.raises(ValueError, match="pattern is null"):
        build_model(make_config(operator={"pattern": None}), graph)
    with pytest.raises(ValueError, match="readout.node_types names 'protein'"):
        build_model(make_config(readout={"node_types": ["protein"]}), graph)


def test_embeddings_take_the_place_of_features():
    """They are filled in after the configuration was read: what it says by itself would not be enough."""
    bare = build_graph(load_model("textbook"), features=False)
    model = build_model(make_config(data={"model": "textbook", "features": False}), bare)
    prediction, _ = model(bare, make_batch(bare, [], [3]))
    assert prediction.shape == (2, 2) and bool(prediction.isfinite().all())


def test_an_edge_type_that_the_graph_lacks_is_named_with_its_line(graph, tmp_path):
    file = tmp_path / "cell.yaml"
    file.write_text(
        "data: {model: textbook}\n"
        "operator:\n"
        "  pattern: M\n"
        "  unmatched: skip\n"
        "  edges:\n"
        "    - {edge_type: [gene, gprr, reaction], kind: incidence_mask}\n"
    )
    config = load_config(file, CellConfig)
    with pytest.raises(ConfigError) as caught:
        build_model(config, graph)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(file), 6)
    assert problem.path == "operator.edges[0].edge_type"
