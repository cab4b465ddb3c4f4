"""Perturbed cells as they are met in the wild: both numberings, dense masks, PyG's collate."""

import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.nn import SAGEConv

from pyg_nsa import HeteroNSA, HeteroNSAConv

CELLS = ((3, 11), (22,), (0, 5, 9), ())


def stack(convs, pattern="MSM", **options):
    num_nodes = {"gene": 23, "reaction": 31, "metabolite": 17}
    return HeteroNSA(-1, 8, convs, pattern, heads=2, **{"num_nodes": num_nodes, **options}).eval()


def assert_close(out, expected):
    assert list(out) == list(expected)
    for t in expected:
        torch.testing.assert_close(out[t], expected[t], rtol=1e-4, atol=1e-5)


def test_the_example_data_have_the_documented_shapes(cell):
    data = cell.make((3, 11))
    gene = data["gene"]
    assert gene.num_nodes == 21
    assert gene.x.shape == (23, 0)
    assert gene.mask.sum() == 21
    assert gene.pert_mask.nonzero().view(-1).tolist() == [3, 11]
    assert gene.x_pert.shape == (2, 0)
    assert data[cell.PHYSICAL].adj_mask.shape == (23, 23)
    assert data[cell.GPR].inc_mask.shape == (23, 31)
    batch = cell.batch([data, cell.make((0, 5, 9))])
    assert batch["gene"].num_nodes == 21 + 20
    assert batch[cell.PHYSICAL].adj_mask.shape == (46, 23)
    assert batch["gene"].x_ptr.tolist() == [0, 23, 46]
    assert batch["gene"].ptr.tolist() == [0, 21, 41]
    assert batch[cell.RMR].hyperedge_index.size(1) == batch[cell.RMR].stoichiometry.numel()


@pytest.mark.parametrize("operator", ["stack", "stack conv", "bare"])
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("numbering", ["compact", "wildtype"])
def test_routes_batches_and_singles_agree(cell, numbering, follow, operator, gradients):
    columns = 3 if operator == "bare" else 0
    cells = [cell.make(d, numbering, columns) for d in CELLS]
    if operator == "stack":
        models = [stack(cell.specs(route), numbering=numbering) for route in ("sparse", "dense")]
    elif operator == "stack conv":
        options = {"num_nodes": {"gene": 23, "reaction": 31, "metabolite": 17}, "pattern": "MS"}
        models = [
            HeteroNSAConv(cell.specs(r), hidden_channels=8, **options) for r in ("sparse", "dense")
        ]
    else:
        models = [HeteroNSAConv(cell.specs(r), hidden_channels=8) for r in ("sparse", "dense")]
    for model in models:
        model.eval()(**model.collect(cells[0]))
    sparse, dense = models
    dense.load_state_dict(sparse.state_dict())
    batch = cell.batch(cells, follow)
    out = sparse(**sparse.collect(batch))
    assert_close(dense(**dense.collect(batch)), out)
    singles = [sparse(**sparse.collect(c)) for c in cells]
    assert_close(dense(**dense.collect(cells[0])), singles[0])
    assert_close(out, {t: torch.cat([s[t] for s in singles]) for t in out})
    gradients(sparse, out)
    one = sparse(**sparse.collect(cell.batch(cells[:1], follow)))
    assert_close(one, singles[0])


@pytest.mark.parametrize("columns", [0, 3])
def test_compact_equals_wildtype_on_the_survivors(cell, columns):
    model = stack(cell.stoichiometric())
    bare = HeteroNSAConv(cell.stoichiometric(), hidden_channels=8).eval()
    compact = [cell.make(d, "compact", columns) for d in CELLS]
    wildtype = [cell.make(d, "wildtype", columns) for d in CELLS]
    for operator in (model, bare) if columns else (model,):
        outs = [operator(**operator.collect(cell.batch(cells))) for cells in (compact, wildtype)]
        for t in outs[0]:
            masks = [cell.batch(cells)[t].mask for cells in (compact, wildtype)]
            torch.testing.assert_close(outs[0][t][masks[0]], outs[1][t][masks[1]])


def test_a_batch_of_cells_equals_the_shared_layout(cell):
    """Wildtype numbering against B copies of the base graph with a mask each."""
    model = stack(cell.stoichiometric())
    cells = [cell.make(d, "wildtype", 3) for d in CELLS]
    out = model(**model.collect(cell.batch(cells)))
    prepared = model.prepare(cell.make((), "wildtype", 3))
    alive = {t: torch.stack([c[t].mask for c in cells]) for t in cell.sizes}
    x = {t: h.expand(len(cells), -1, -1) for t, h in prepared["x_dict"].items()}
    layout = {"x_dict": x, "mask_dict": alive, "pert_mask_dict": {}}
    shared = model(**{**prepared, **layout})
    assert_close({t: h.flatten(0, 1) for t, h in shared.items()}, out)


def test_embeddings_are_those_of_the_right_nodes(cell):
    for numbering in ("compact", "wildtype"):
        model = stack(cell.specs(), "M")
        cells = [cell.make(d, numbering) for d in CELLS]
        batch = cell.batch(cells)
        model(**model.collect(batch))
        seen = {}
        model.blocks[0].register_forward_pre_hook(lambda m, args, seen=seen: seen.update(args[0]))
        model(**model.collect(batch))
        for t, count in cell.sizes.items():
            entrance = model.inputs[t]
            for b, data in enumerate(cells):
                rows = seen[t][b * count : (b + 1) * count] - entrance.bias
                survivors = (~data[t].pert_mask).nonzero().view(-1)
                real = data[t].mask
                torch.testing.assert_close(rows[real], entrance.embedding.weight[survivors])


def test_pyg_convs_read_compact_batches(cell):
    """Indices of a compact batch count real nodes; a PyG conv beside declared kinds gets rows of x."""
    convs = {**cell.specs(), cell.GPR: SAGEConv((4, 4), 8), cell.PHYSICAL: SAGEConv(4, 8)}
    cells = [cell.make(d, columns=4) for d in CELLS]
    for model in (
        HeteroNSAConv(convs, hidden_channels=8),
        HeteroNSA(-1, 4, {**convs, cell.GPR: SAGEConv(4, 4), cell.PHYSICAL: SAGEConv(4, 4)}, "MM"),
    ):
        model.eval()
        singles = [model(**model.collect(c)) for c in cells]
        for follow in (True, False):
            out = model(**model.collect(cell.batch(cells, follow)))
            assert_close(out, {t: torch.cat([s[t] for s in singles]) for t in out})
    wildtype = [cell.make(d, "wildtype", columns=4) for d in CELLS]
    other = model(**model.collect(cell.batch(wildtype)))
    for t in out:
        masks = [cell.batch(c)[t].mask for c in (cells, wildtype)]
        torch.testing.assert_close(out[t][masks[0]], other[t][masks[1]])


def test_a_compiled_step_reads_compact_batches(cell):
    model = stack(cell.stoichiometric(), "M")
    call = model.collect(cell.batch([cell.make(d) for d in CELLS]))
    expected = model(**call)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_close(compiled(**call), expected)
    bare = HeteroNSAConv({cell.PHYSICAL: "adjacency_mask"}, hidden_channels=8, in_channels=3)
    compiled = torch.compile(bare, fullgraph=True, backend="aot_eager")
    batch = cell.batch([cell.make(d, columns=3) for d in CELLS], follow=False)
    with pytest.raises(RuntimeError, match="compact data of node type 'gene' need x_ptr_dict"):
        compiled(**bare.collect(batch))


def test_masks_alone_tell_the_numbering(cell):
    """Data that do not say num_nodes: as many padding rows at the end as pert_mask marks elsewhere is compact."""
    model = stack(cell.stoichiometric())
    for numbering in ("compact", "wildtype"):
        cells = [cell.make(d, numbering) for d in CELLS]
        expected = [model(**model.collect(c)) for c in cells]
        for data in cells:
            for t in cell.sizes:
                del data[t].num_nodes
        for data, wanted in zip(cells, expected, strict=True):
            assert_close(model(**model.collect(data)), wanted)
        for follow in (True, False):
            out = model(**model.collect(cell.batch(cells, follow)))
            assert_close(out, {t: torch.cat([e[t] for e in expected]) for t in out})
    only_last = {
        n: cell.make((22,), n) for n in ("compact", "wildtype")
    }  # both numberings look alike
    for said in ("compact", "wildtype"):
        model = stack(cell.specs(), numbering=said)
        for data in only_last.values():
            del data["gene"].num_nodes
        outs = [model(**model.collect(d)) for d in only_last.values()]
        for t in cell.sizes:
            real = only_last["wildtype"][t].mask
            torch.testing.assert_close(outs[0][t][real], outs[1][t][real])


def test_a_mixture_of_numberings_is_refused(cell):
    model = stack(cell.specs())
    for first, second in (("compact", "wildtype"), ("wildtype", "compact")):
        batch = cell.batch([cell.make((3, 11), first), cell.make((2,), second)])
        with pytest.raises(ValueError, match=r"node type 'gene' mixes two numberings in one batch"):
            model(**model.collect(batch))
    compact, wildtype = cell.make((3, 11)), cell.make((3, 11), "wildtype")
    for name, value in wildtype["reaction"].items():
        compact["reaction"][name] = value
    with pytest.raises(
        ValueError, match=r"mixes two numberings: node type 'gene' is compact .* 'reaction' is wild"
    ):
        model(**model.collect(compact))


@pytest.mark.parametrize("follow", [None, True, False])
def test_a_numbering_that_contradicts_the_data_is_refused(cell, follow):
    for said, found in (("compact", "wildtype"), ("wildtype", "compact")):
        model = stack(cell.specs(), numbering=said)
        data = cell.make((3, 11), found)
        data = data if follow is None else cell.batch([data, data], follow)
        text = f"'gene': the configuration says numbering: {said}, but the data is in {found} numbering"
        with pytest.raises(ValueError, match=text):
            model(**model.collect(data))
        unperturbed = cell.make((), found)
        model(**model.collect(unperturbed))  # without deletions the two are one


def _wrong(change, text, error=ValueError):
    return pytest.param(change, text, error, id=change.__name__)


def _mask_shape(cell, data):
    data[cell.PHYSICAL].adj_mask = torch.zeros(23, 22, dtype=torch.bool)


def _float_mask(cell, data):
    data[cell.PHYSICAL].adj_mask = data[cell.PHYSICAL].adj_mask.float()


def _float_node_mask(cell, data):
    data["gene"].mask = data["gene"].mask.float()


def _node_mask_shape(cell, data):
    data["gene"].mask = data["gene"].mask[:-1]


def _no_coefficients(cell, data):
    del data[cell.RMR].stoichiometry


def _no_edges(cell, data):
    del data[cell.GPR].hyperedge_index
    del data[cell.GPR].inc_mask


def _nan(cell, data):
    data[cell.RMR].stoichiometry[4] = float("nan")


def _wrong_number(cell, data):
    data[cell.RMR].stoichiometry = data[cell.RMR].stoichiometry[:-1]


def _matrix(cell, data):
    data[cell.RMR].stoichiometry = torch.zeros(31, 17, 2)


def _text(cell, data):
    data[cell.RMR].stoichiometry = "many"


def _out_of_range(cell, data):
    data[cell.GPR].hyperedge_index[0, 0] = 21  # a padding row


def _negative(cell, data):
    data[cell.GPR].hyperedge_index[1, 0] = -1


def _float_edges(cell, data):
    data[cell.GPR].hyperedge_index = data[cell.GPR].hyperedge_index.float()


def _wrong_mask(cell, data):
    data["gene"].mask[0] = False


def _wrong_deletions(cell, data):
    data["gene"].pert_mask[0] = True


def _no_deletions(cell, data):
    del data["gene"].pert_mask


@pytest.mark.parametrize(
    ("change", "text", "error"),
    [
        _wrong(
            _mask_shape, r"'adj_mask' of edge type .* must have shape \[23, 23\] .*got \[23, 22\]"
        ),
        _wrong(
            _float_mask,
            r"'adj_mask' of edge .* boolean tensor, got torch.float32.*\.bool\(\)",
            TypeError,
        ),
        _wrong(_float_node_mask, r"'mask' of node type 'gene' must be a boolean tensor", TypeError),
        _wrong(_node_mask_shape, r"'mask' of node type 'gene' must have shape \[23\].*got \[22\]"),
        _wrong(
            _no_coefficients,
            r"'stoichiometry_bias' of edge type .* requires 'stoichiometry', .*fields present: hyper",
        ),
        _wrong(
            _no_edges,
            r"'incidence_mask' of .* requires 'hyperedge_index', which .*none",
        ),
        _wrong(_nan, r"'stoichiometry' of edge type .* is NaN or infinite at edge 4"),
        _wrong(
            _wrong_number,
            r"'stoichiometry' of edge type .*: edge attributes must have one row per edge",
        ),
        _wrong(_matrix, r"'stoichiometry' of edge type .* must have shape \[E\] or \[E, F\]"),
        _wrong(
            _text,
            r"'stoichiometry' of edge type .* must be a tensor of numbers, got str",
            TypeError,
        ),
        _wrong(
            _out_of_range, r"out of range for node type 'gene': found 21, but .* counts 21 nodes"
        ),
        _wrong(_negative, r"out of range.* -1"),
        _wrong(
            _float_edges,
            r"'hyperedge_index' of edge type .*: edge_index must hold integers",
            TypeError,
        ),
        _wrong(_wrong_mask, r"'mask' of node type 'gene' marks 20 real rows, but .* counts 21"),
        _wrong(
            _wrong_deletions, r"graph 0 has 2 padding rows, but its pert_mask marks 3 deleted nodes"
        ),
        _wrong(_no_deletions, r"embeddings of node type 'gene' .* holds no 'pert_mask'"),
    ],
)
def test_wrong_data_are_named(cell, change, text, error):
    convs = cell.stoichiometric()
    convs[cell.PHYSICAL] = {"kind": "adjacency_mask", "options": {"source": "adj_mask"}}
    model = stack(convs)
    data = cell.make((3, 11))
    model(**model.collect(data))
    change(cell, data)
    with pytest.raises(error, match=text):
        model(**model.collect(data))


def test_wrong_batches_are_named(cell):
    model = stack(cell.specs("dense"))
    batch = cell.batch([cell.make(d) for d in CELLS])
    call = model.collect(batch)
    model(**call)
    text = r"'adj_mask' of .* must have shape \[92, 23\] \(rows: .*stacked for 4 graphs.*got \[23, 23\]"
    masks = {**call["adj_mask_dict"], cell.PHYSICAL: torch.zeros(23, 23, dtype=torch.bool)}
    with pytest.raises(ValueError, match=text):
        model(**{**call, "adj_mask_dict": masks})
    only_batch = {k: v for k, v in call.items() if k not in ("ptr_dict", "x_ptr_dict")}
    short = {t: b[:-1] for t, b in call["batch_dict"].items()}
    with pytest.raises(ValueError, match="'batch' of node type 'gene' has 91 entries but x has 92"):
        model(**{**only_batch, "batch_dict": short})
    x = {**call["x_dict"], "gene": call["x_dict"]["gene"][:-1]}
    with pytest.raises(ValueError, match=r"ends at 92 but x has 91 rows"):
        model(**{**call, "x_dict": x, "mask_dict": {}, "pert_mask_dict": {}})
    no_rows = {k: v for k, v in call.items() if k != "x_ptr_dict"}
    with pytest.raises(
        ValueError, match=r"x of node type 'gene' has 91 rows, but 'ptr' counts 86 nodes"
    ):
        model(**{**no_rows, "x_dict": x, "mask_dict": {}, "pert_mask_dict": {}})


@pytest.mark.parametrize(
    ("field", "value", "error", "got"),
    [
        ("ptr", [0, 12, 23], TypeError, "list"),
        ("x_ptr", torch.tensor([0.0, 23.0]), TypeError, "torch.float32 of shape [2]"),
        ("ptr", torch.zeros(0, dtype=torch.int64), ValueError, "torch.int64 of shape [0]"),
        (
            "batch",
            torch.zeros(23, 1, dtype=torch.int64),
            ValueError,
            "torch.int64 of shape [23, 1]",
        ),
        ("batch", torch.zeros(23, dtype=torch.bool), TypeError, "torch.bool of shape [23]"),
    ],
)
def test_what_says_of_which_graph_rows_are_is_a_tensor_of_numbers(cell, field, value, error, got):
    model = stack(cell.specs())
    call = model.collect(cell.make(()))
    shape = "[N]" if field == "batch" else "[B + 1]"
    text = f"'{field}' of node type 'gene' must be int64 of shape {shape}"
    with pytest.raises(error, match=re.escape(text) + ".*" + re.escape(f"got {got}")):
        model(**{**call, f"{field}_dict": {"gene": value}})


def test_zero_columns_need_embeddings(cell):
    data = cell.make((3, 11))
    model = HeteroNSA(-1, 8, cell.specs(), "M", heads=2)
    with pytest.raises(ValueError, match=r"'gene' has no columns.*num_nodes=\{'gene': <nodes"):
        model(**model.collect(data))
    bare = HeteroNSAConv(cell.specs(), hidden_channels=8)
    with pytest.raises(ValueError, match=r"'gene' has no columns.*pattern='M'"):
        bare(**bare.collect(data))
    small = stack(cell.specs(), num_nodes={"gene": 22, "reaction": 31, "metabolite": 17})
    with pytest.raises(ValueError, match="num_nodes says 22 nodes of type 'gene'.*found node 22"):
        small(**small.collect(data))


def test_nodes_without_x_have_no_columns(cell):
    model = stack(cell.specs())
    for numbering in ("compact", "wildtype"):
        data = cell.make((3, 11), numbering)
        expected = model(**model.collect(data))
        for t in cell.sizes:
            del data[t].x
        assert_close(model(**model.collect(data)), expected)
        bare = cell.make((), numbering)
        for t in cell.sizes:
            for name in ("x", "mask", "pert_mask"):
                del bare[t][name]
        assert model(**model.collect(bare))["gene"].shape == (23, 8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_nodes_without_features_in_a_module_of_any_dtype(cell, dtype):
    model = stack(cell.specs()).to(dtype)
    data = cell.make((3, 11))
    given = model(**model.collect(data))  # x is float32, of no columns
    for t in cell.sizes:
        del data[t].x
    out = model(**model.collect(data))
    assert all(value.dtype == dtype for value in out.values())
    assert_close(out, given)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made, those inside of our own operators included."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor) and value.layout == torch.strided:
                self.numel = max(
                    self.numel, value.untyped_storage().nbytes() // value.element_size()
                )
        return out


@pytest.mark.parametrize("channels", [8, 16], ids=["relation by relation", "all in one pass"])
def test_real_sizes_build_nothing_of_size_n_squared(channels, cell, gradients):
    def pairs(n_src, n_dst, n):
        return torch.stack([torch.randint(n_src, (n,)), torch.randint(n_dst, (n,))])

    genes, reactions, metabolites = 6607, 7122, 2806
    sizes = {"gene": genes, "reaction": reactions, "metabolite": metabolites}
    x = {t: torch.randn(n, channels) for t, n in sizes.items()}
    conv = HeteroNSAConv(cell.stoichiometric(), hidden_channels=16, heads=2)
    call = {
        "x_dict": x,
        "edge_index_dict": {
            cell.PHYSICAL: pairs(genes, genes, 144_211),
            cell.REGULATORY: pairs(genes, genes, 16_101),
        },
        "hyperedge_index_dict": {
            cell.GPR: pairs(genes, reactions, 5_450),
            cell.RMR: pairs(reactions, metabolites, 13_580),
        },
        "stoichiometry_dict": {cell.RMR: torch.randn(13_580)},
        "pert_mask_dict": {"gene": torch.arange(genes) < 2},
    }
    with Largest() as largest:
        out = conv(**call)
        gradients(conv, out)
    assert {t: h.size(0) for t, h in out.items()} == sizes
    # One number for each pair and head was seen, so the inside of the operators was.
    assert 2 * 140_000 <= largest.numel < 40 * 144_211 < genes * genes / 7
