"""Small graphs of one relation for the checks, with the fields that an edge kind asks for.

A field's name says what it is, as it does everywhere in pyg_nsa: `…_index` holds the edges `[2, E]`, `…_mask` is a dense boolean
mask `[sources, targets]`, and every other field is an edge attribute with one row for each edge.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_nsa.api import Options

__all__ = [
    "COLUMNS",
    "EdgeType",
    "MakeFields",
    "SmallGraph",
    "building",
    "is_structure",
    "make_graph",
    "seeded",
]

EdgeType = tuple[str, str, str]

#: `make_fields(options, edge_index, num_nodes)` gives the fields of an edge type by name; `num_nodes` counts sources and targets.
MakeFields = Callable[[Options, Tensor, tuple[int, int]], Mapping[str, Tensor]]

#: Columns of the rows of each node type.
COLUMNS = {"node": 4, "source": 4, "target": 5}

#: More than any graph here has nodes, so that a first dimension of this size means edges.
NUM_EDGES = 12


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's CPU generator, and puts its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def building(seed: int) -> Iterator[None]:
    """Around the making of a module: seeded, and without HeteroConv's warning of node types that no edge leads to."""
    with seeded(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There exist node types", UserWarning)
        yield


def is_structure(name: str) -> bool:
    """Whether a field holds the edges themselves."""
    return name.endswith(("_index", "_mask"))


@dataclass(frozen=True)
class SmallGraph:
    """A graph of one relation.

    Attributes:
        edge_type: The relation.
        index: `[2, E]` int64, sources and targets.
        x: Rows of the sources and of the targets; the same tensor within one node type.
        structure: The names under which the edges are stored.
        fields: All other fields.
        node_fields: Further fields of the two ends, by name.
    """

    edge_type: EdgeType
    index: Tensor
    x: tuple[Tensor, Tensor]
    structure: tuple[str, ...]
    fields: Mapping[str, Tensor]
    node_fields: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def num_nodes(self) -> tuple[int, int]:
        """Number of sources and of targets."""
        return self.x[0].size(0), self.x[1].size(0)

    @property
    def is_within(self) -> bool:
        """Whether both ends are one node type."""
        return self.edge_type[0] == self.edge_type[2]

    def attributes(self) -> dict[str, Tensor]:
        """The fields with one row for each edge."""
        return {n: v for n, v in self.fields.items() if self._is_attribute(n, v)}

    def data(self) -> HeteroData:
        """The graph as PyG holds it, in tensors of its own."""
        data = HeteroData()
        source, _, target = self.edge_type
        for end, node_type in enumerate((source, target)):
            data[node_type].x = self.x[end].clone()
            for name, values in self.node_fields.items():
                data[node_type][name] = values[end].clone()
            if "mask" in self.node_fields:  # by this PyG numbers the edges of a batch
                data[node_type].num_nodes = int(data[node_type].mask.sum())
        store = data[self.edge_type]
        for name in self.structure:
            store[name] = self._dense() if name.endswith("_mask") else self.index.clone()
        for name, value in self.fields.items():
            store[name] = value.clone()
        return data

    def choose(self, edges: Tensor) -> SmallGraph:
        """The graph with these edges, by number, in this order; an edge may be chosen more than once."""
        return replace(
            self,
            index=self.index[:, edges],
            fields={n: self._chosen(n, v, edges) for n, v in self.fields.items()},
        )

    def with_fields(self, **fields: Tensor) -> SmallGraph:
        """The graph with other values in some fields."""
        return replace(self, fields={**self.fields, **fields})

    def with_structure(self, names: Sequence[str]) -> SmallGraph:
        """The graph with its edges under other names."""
        return replace(self, structure=tuple(names))

    def with_isolated_nodes(self) -> SmallGraph:
        """The graph with one more node at each end, without edges."""
        rows = [torch.cat([x, torch.linspace(-1, 1, x.size(1))[None]]) for x in self.x]
        return self._with_rows(*rows)

    def without_nodes(self, dead: tuple[Tensor, Tensor]) -> SmallGraph:
        """The graph without the marked sources and targets, the others relabelled."""
        alive = (~dead[0], ~dead[1])
        keep = alive[0][self.index[0]] & alive[1][self.index[1]]
        kept = self.choose(keep.nonzero().view(-1))
        index = torch.stack([(a.cumsum(0) - 1)[i] for a, i in zip(alive, kept.index, strict=True)])
        rows = [x[a] for x, a in zip(self.x, alive, strict=True)]
        return replace(kept, index=index)._with_rows(*rows)

    def renumbered(self, orders: tuple[Tensor, Tensor]) -> SmallGraph:
        """The graph with its nodes in other orders: row `i` of the new `x` is row `order[i]` of the old one. Its edges are sorted by the
        new numbers, for attributes beside a dense mask are in the order of its entries.
        """
        index = torch.stack([o.argsort()[i] for o, i in zip(orders, self.index, strict=True)])
        rows = [x[o] for x, o in zip(self.x, orders, strict=True)]
        moved = replace(self, index=index)._with_rows(*rows)
        return moved.choose((index[0] * self.num_nodes[1] + index[1]).argsort())

    def _with_rows(self, sources: Tensor, targets: Tensor) -> SmallGraph:
        """The graph with another `x`; within one node type both ends are the same rows."""
        return replace(self, x=(sources, sources if self.is_within else targets))

    def with_deleted(self, dead: tuple[Tensor, Tensor]) -> SmallGraph:
        """The graph with the marked sources and targets deleted in wildtype numbering."""
        return replace(self, node_fields={**self.node_fields, "pert_mask": dead})

    def with_padding(self, rows: tuple[int, int]) -> SmallGraph:
        """The graph with so many more rows of `x` at the end of either node type, which `mask` tells from the nodes; the edges' numbering
        leaves them out.
        """
        padded = [
            torch.cat([x, x.new_ones(n, x.size(1))]) for x, n in zip(self.x, rows, strict=True)
        ]
        masks = tuple(torch.arange(len(x)) < n for x, n in zip(padded, self.num_nodes, strict=True))
        fields = {**self.node_fields, "mask": (masks[0], masks[1])}
        return replace(self, node_fields=fields)._with_rows(*padded)

    def double(self) -> SmallGraph:
        """The graph in float64."""
        x = (self.x[0].double(), self.x[1].double())
        return replace(self, x=x).with_double_fields()

    def with_double_fields(self) -> SmallGraph:
        """The graph with its floating-point fields in float64."""
        floats = {n: v.double() for n, v in self.fields.items() if v.is_floating_point()}
        return self.with_fields(**floats)

    def _dense(self) -> Tensor:
        mask = torch.zeros(self.num_nodes, dtype=torch.bool)
        mask[self.index[0], self.index[1]] = True
        return mask

    def _is_attribute(self, name: str, value: Tensor) -> bool:
        return not is_structure(name) and value.dim() > 0 and value.size(0) == self.index.size(1)

    def _chosen(self, name: str, value: Tensor, edges: Tensor) -> Tensor:
        if self._is_attribute(name, value):
            return value[edges]
        if name.endswith("_index") and value.dim() == 2 and value.size(1) == self.index.size(1):
            return value[:, edges]
        return value


def make_graph(
    edge_type: EdgeType,
    fields: Sequence[str],
    options: Options,
    make_fields: MakeFields | None = None,
    *,
    seed: int = 0,
    num_nodes: tuple[int, int] = (7, 7),
    index: Tensor | None = None,
) -> SmallGraph:
    """Makes a graph with the given fields.

    Edges are unique, without loops, and sorted by source and target, so that attributes are in the order of a dense mask's
    entries too. Random edges leave no node without one.

    Args:
        edge_type: The relation; its node types are keys of `COLUMNS`.
        fields: Names of the fields.
        options: Handed to `make_fields`.
        make_fields: Gives fields in place of the generated ones.
        seed: Of everything random.
        num_nodes: Number of sources and targets.
        index: The edges; random ones if not given.

    Raises:
        ValueError: `make_fields` gives an attribute of the edges under the name of a dense mask.
    """
    is_within = edge_type[0] == edge_type[2]
    with seeded(seed):
        if index is None:
            index = _random_edges(num_nodes, is_within)
        rows = [torch.randn(n, COLUMNS[t]) for n, t in zip(num_nodes, edge_type[::2], strict=True)]
        made = {n: _attribute(n, index.size(1)) for n in fields if not is_structure(n)}
        if make_fields is not None:
            made.update(make_fields(options, index.clone(), num_nodes))
            _check_names(made)
    return SmallGraph(
        edge_type,
        index,
        (rows[0], rows[0]) if is_within else (rows[0], rows[1]),
        tuple(n for n in fields if is_structure(n) and n not in made),
        made,
        {},
    )


def _check_names(made: Mapping[str, object]) -> None:
    for name, value in made.items():
        if name.endswith("_mask") and isinstance(value, Tensor) and value.dim() == 1:
            raise ValueError(
                f"make_fields gives '{name}' of shape {list(value.shape)}, but a name that ends in _mask means a dense mask, "
                "[sources, targets], and data with it are refused; give an attribute of the edges another name"
            )


def _random_edges(num_nodes: tuple[int, int], is_within: bool) -> Tensor:
    src, dst = num_nodes
    every = torch.arange(max(num_nodes))
    covering = every % src * dst + (every + is_within) % dst  # a ring within one node type
    pairs = torch.cartesian_prod(torch.arange(src), torch.arange(dst))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]] if is_within else pairs
    others = pairs[:, 0] * dst + pairs[:, 1]
    others = others[~torch.isin(others, covering)]
    more = others[torch.randperm(len(others))[: NUM_EDGES - len(covering)]]
    chosen = torch.cat([covering, more]).sort().values
    return torch.stack([chosen // dst, chosen % dst])


def _attribute(name: str, num_edges: int) -> Tensor:
    if name == "stoichiometry":  # signed, and never zero
        sign = 1 - 2 * torch.randint(2, (num_edges,))
        return (sign * torch.randint(1, 4, (num_edges,))).float()
    if name == "edge_attr":
        return torch.randn(num_edges, 2)
    if name == "edge_type":
        return torch.randint(2, (num_edges,))
    # Positive, so that kinds which take a root or a logarithm can be checked, too.
    return torch.rand(num_edges) + 0.5
