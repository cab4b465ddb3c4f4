"""Edge kinds with one mistake each, beside the sound one that they are made from."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import nn

from pyg_nsa import EdgeKind, EdgeSet, EdgeTerm, Options, PairOptions


class WeightOptions(PairOptions):
    edge_attr: str = "weight"
    "The field with the weights."


class SoundTerm(EdgeTerm):
    """Pairs of the edges, with a learned multiple of each pair's weight as the bias."""

    def __init__(self, context, options):
        super().__init__()
        self.heads = context.heads
        self.options = options
        self.field = getattr(options, "edge_attr", "weight")
        self.rate = nn.Parameter(torch.ones(context.heads))

    def reset_parameters(self):
        nn.init.ones_(self.rate)

    def weight(self, inputs, edges):
        return edges.coalesce(inputs.edge_attr(self.field)).to(self.rate.dtype)

    def pairs(self, inputs):
        return inputs.edges_from_index(
            "edge_index",
            symmetrize=getattr(self.options, "symmetrize", False),
            self_loops=getattr(self.options, "self_loops", False),
        )

    def bias(self, inputs, edges):
        return self.weight(inputs, edges) * self.rate


def kind(term=SoundTerm, name="weighted", **changes):
    given = {
        "options": WeightOptions,
        "summary": "Pairs of the edges, biased by their weight.",
        "produces": frozenset({"mask", "bias"}),
        "requires": ("edge_index",),
        "inputs": lambda options: ("edge_index", getattr(options, "edge_attr", "weight")),
        "api": (1, 0),
        **changes,
    }
    return EdgeKind(name=name, build=lambda context, options: term(context, options), **given)


class Reversed(SoundTerm):
    def pairs(self, inputs):
        index = inputs.rows(inputs.field("edge_index")).flip(0)
        return EdgeSet.from_edge_index(index, inputs.src.num_rows, inputs.dst.num_rows)


class Leaking(SoundTerm):
    """The mean is that of all graphs of a batch."""

    def bias(self, inputs, edges):
        weight = self.weight(inputs, edges)
        return weight * weight.mean() * self.rate if edges.num_pairs else weight * self.rate


class LeakingPairs(EdgeTerm):
    """All targets attend to all sources, those of other graphs included."""

    def __init__(self, context, options):
        super().__init__()

    def pairs(self, inputs):
        src, dst = inputs.src.num_rows, inputs.dst.num_rows
        every = torch.cartesian_prod(torch.arange(src), torch.arange(dst)).t()
        return EdgeSet.from_edge_index(every, src, dst)


class Detached(SoundTerm):
    def bias(self, inputs, edges):
        return super().bias(inputs, edges).detach()


class DetachedAttribute(SoundTerm):
    def weight(self, inputs, edges):
        return super().weight(inputs, edges).detach()


class WrongGradient(SoundTerm):
    """The gradient of the rate is twice what it should be."""

    def bias(self, inputs, edges):
        good = super().bias(inputs, edges)
        return 2 * good - good.detach()


class RandomPairs(SoundTerm):
    def pairs(self, inputs):
        edges = super().pairs(inputs)
        keep = torch.rand(edges.num_pairs) < 0.5
        index = edges.edge_index()[:, keep]
        return EdgeSet.from_edge_index(index, edges.num_keys, edges.num_queries)

    def bias(self, inputs, edges):
        return self.rate.expand(edges.num_pairs, -1) * edges.col[:, None]


class CrashesWhenEmpty(SoundTerm):
    def bias(self, inputs, edges):
        weight = self.weight(inputs, edges)
        return (weight - weight.amin(0)) * self.rate if len(weight) < 10**9 else weight


class NoGradientWhenEmpty(SoundTerm):
    def bias(self, inputs, edges):
        if edges.num_pairs == 0:
            return torch.zeros(0, self.heads)
        return super().bias(inputs, edges)


class InEdgeOrder(SoundTerm):
    """Takes attributes to be in the order of the pairs, which holds for sorted edges only."""

    def weight(self, inputs, edges):
        weight = inputs.edge_attr(self.field)[: edges.num_pairs, None]
        return torch.cat([weight, weight.new_ones(edges.num_pairs - len(weight), 1)])


class DropsDuplicates(SoundTerm):
    """Takes the attribute of one of the edges that became a pair."""

    def weight(self, inputs, edges):
        weight = inputs.edge_attr(self.field)
        out = weight.new_zeros(edges.num_pairs)
        return out.index_put((edges.pair_of,), weight[edges.edge_of])[:, None]


class HalfPrecision(SoundTerm):
    def bias(self, inputs, edges):
        return super().bias(inputs, edges).half()


class AlwaysFloat32(SoundTerm):
    def bias(self, inputs, edges):
        return super().bias(inputs, edges).float()


class OneColumn(SoundTerm):
    def bias(self, inputs, edges):
        return super().bias(inputs, edges)[:, :1]


class BiasOfEdges(SoundTerm):
    """One row for each edge, not for each pair."""

    def bias(self, inputs, edges):
        return inputs.edge_attr(self.field)[:-1, None] * self.rate


class KeepsState(SoundTerm):
    def bias(self, inputs, edges):
        if not hasattr(self, "mean"):
            self.mean = self.weight(inputs, edges).mean().detach()
        return (self.weight(inputs, edges) - self.mean) ** 2 * self.rate


class CountsCalls(SoundTerm):
    calls = 0

    def bias(self, inputs, edges):
        self.calls += 1
        return super().bias(inputs, edges) * self.calls


class NotCompiled(SoundTerm):
    def bias(self, inputs, edges):
        bias = super().bias(inputs, edges)
        return bias * 2 if edges.num_pairs and bool(bias.sum() > 0) else bias


class PairsNotCompiled(SoundTerm):
    def pairs(self, inputs):
        index = inputs.rows(inputs.field("edge_index"))
        if not index.numel() or int(index.max()) < 0:
            return super().pairs(inputs)
        return EdgeSet.from_edge_index(index, inputs.src.num_rows, inputs.dst.num_rows)


class ValuesOfNodes(SoundTerm):
    """Reads a value of each pair's source, also in the slots that a compiled graph leaves where edges occur twice."""

    def source(self, edges):
        return edges.col

    def bias(self, inputs, edges):
        values = torch.ones(edges.num_keys, dtype=self.rate.dtype)
        return super().bias(inputs, edges) * values[self.source(edges), None]


class ValuesOfNodesByClamping(ValuesOfNodes):
    """The remedy of docs/write_a_plugin.md."""

    def source(self, edges):
        return edges.col.clamp(max=edges.num_keys - 1)


class PairsInSelf(SoundTerm):
    """bias() relies on what pairs() of the same term left behind."""

    def pairs(self, inputs):
        edges = super().pairs(inputs)
        self.weights = inputs.edge_attr(self.field)
        return edges

    def bias(self, inputs, edges):
        return edges.coalesce(self.weights) * self.rate


class WritesToInputs(SoundTerm):
    def weight(self, inputs, edges):
        weight = inputs.edge_attr(self.field)
        with torch.no_grad():
            weight.clamp_(min=0.0)
        return edges.coalesce(weight).to(self.rate.dtype)


class WritesToInputsInTraining(SoundTerm):
    def weight(self, inputs, edges):
        weight = inputs.edge_attr(self.field)
        if self.training:
            with torch.no_grad():
                weight.mul_(1.5)
        return edges.coalesce(weight).to(self.rate.dtype)


class DetachedInTraining(SoundTerm):
    def weight(self, inputs, edges):
        weight = super().weight(inputs, edges)
        return weight.detach() if self.training else weight


class NoBackwardInTraining(SoundTerm):
    """Writes to what the gradient of a product needs."""

    def bias(self, inputs, edges):
        bias = super().bias(inputs, edges)
        if not self.training:
            return bias
        square = bias * bias
        bias.mul_(2)
        return square


class LeakingInTraining(SoundTerm):
    """Divides by the largest weight of all graphs of a batch."""

    def weight(self, inputs, edges):
        weight = super().weight(inputs, edges)
        return weight / weight.max() if self.training and edges.num_pairs else weight


class NoiseInTraining(LeakingInTraining):
    """With random numbers there is nothing to compare a batch with."""

    def bias(self, inputs, edges):
        bias = super().bias(inputs, edges)
        return bias + torch.rand(()) * self.rate if self.training else bias


class RunningMeanInBuffer(SoundTerm):
    """Sound: what calls in training mode leave behind is saved."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.register_buffer("mean", torch.zeros(()))

    def bias(self, inputs, edges):
        weight = self.weight(inputs, edges)
        if self.training and edges.num_pairs:
            self.mean = 0.9 * self.mean + 0.1 * weight.detach().mean()
        return (weight - self.mean) ** 2 * self.rate


class IgnoresPairOptions(SoundTerm):
    def pairs(self, inputs):
        return inputs.edges_from_index("edge_index")


class IgnoresLoops(SoundTerm):
    def pairs(self, inputs):
        return inputs.edges_from_index("edge_index", symmetrize=self.options.symmetrize)


class DirectedOptions(WeightOptions):
    """Sound: refuses what the kind does not do."""

    @field_validator("symmetrize", "self_loops")
    @classmethod
    def _never(cls, value):
        if value:
            raise ValueError("the pairs are those of the edges")
        return value


class WithinOneType(SoundTerm):
    """Sound: refuses edge types between two node types."""

    def __init__(self, context, options):
        if context.edge_type[0] != context.edge_type[2]:
            raise ValueError("within one node type only")
        super().__init__(context, options)


class NotUnderAutocast(SoundTerm):
    """A linear layer gives bfloat16, which is added to float32."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.lin = nn.Linear(1, context.heads, bias=False)

    def reset_parameters(self):
        super().reset_parameters()
        self.lin.reset_parameters()

    def bias(self, inputs, edges):
        more = self.lin(self.weight(inputs, edges))
        return super().bias(inputs, edges).index_add(0, torch.arange(edges.num_pairs), more)


class RoughUnderAutocast(SoundTerm):
    """A large product from which a large number is taken: bfloat16 knows 300 and 302, and nothing between."""

    def bias(self, inputs, edges):
        weight = self.weight(inputs, edges)
        one = torch.ones(1, 1, dtype=weight.dtype)
        whole = ((4 * weight).round() + 300) @ one - 300
        return 4 * whole * self.rate


class HoldsFunction(SoundTerm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.twice = lambda bias: 2 * bias

    def bias(self, inputs, edges):
        return self.twice(super().bias(inputs, edges))


class NeedsChannels(SoundTerm):
    """A parameter of a size that is not known before the first call."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.scale = nn.Parameter(torch.ones(context.in_channels[0]))

    def reset_parameters(self):
        super().reset_parameters()
        nn.init.ones_(self.scale)

    def bias(self, inputs, edges):
        return super().bias(inputs, edges) * self.scale.sum()


class OtherParameters(SoundTerm):
    """Leaves out a part where sizes are not known."""

    def __init__(self, context, options):
        super().__init__(context, options)
        if context.in_channels[0] > 0:
            self.more = nn.Parameter(torch.ones(context.heads))

    def reset_parameters(self):
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def bias(self, inputs, edges):
        bias = super().bias(inputs, edges)
        return bias + self.weight(inputs, edges) * getattr(self, "more", 0)


class TwoHeads(SoundTerm):
    """Takes two heads for granted."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.rate = nn.Parameter(torch.ones(2))


class ColumnsForHeads(SoundTerm):
    """The columns of the attribute in place of heads."""

    def bias(self, inputs, edges):
        return edges.coalesce(inputs.edge_attr("edge_attr"))


class NotSaved(SoundTerm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.offset = torch.randn(context.heads)

    def bias(self, inputs, edges):
        return super().bias(inputs, edges) * self.offset


class RunningMean(SoundTerm):
    """Keeps in a plain attribute what calls in training mode have seen."""

    mean = 0.0

    def bias(self, inputs, edges):
        weight = self.weight(inputs, edges)
        if self.training and edges.num_pairs:
            self.mean = 0.9 * self.mean + 0.1 * float(weight.detach().mean())
        return (weight - self.mean) ** 2 * self.rate


class RunningMeanThatCancels(RunningMean):
    """What it subtracts is the same for all pairs, so that only the bias shows it."""

    def bias(self, inputs, edges):
        super().bias(inputs, edges)
        return (self.weight(inputs, edges) - self.mean) * self.rate


class NeverReset(SoundTerm):
    def reset_parameters(self):
        pass


class HalfReset(SoundTerm):
    """A layer below the term is reset, a parameter of the term is not."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.lin = nn.Linear(1, context.heads)

    def reset_parameters(self):
        self.lin.reset_parameters()

    def bias(self, inputs, edges):
        return super().bias(inputs, edges) + self.lin(self.weight(inputs, edges))


class DeadNodesCount(SoundTerm):
    """The bias falls with the number of targets that a source has, dead ones included."""

    def bias(self, inputs, edges):
        ones = torch.ones_like(edges.col)
        degree = torch.zeros(edges.num_keys + 1, dtype=torch.long).index_add(0, edges.col, ones)
        return super().bias(inputs, edges) / degree[edges.col][:, None]


class LivingNodesCount(SoundTerm):
    """The bias falls with the number of living targets that a source has, in every copy of a graph as if it were the only one."""

    def alive(self, inputs, edges):
        found = inputs.dst.alive
        return torch.ones(edges.num_queries, dtype=torch.bool) if found is None else found

    def bias(self, inputs, edges):
        living = self.alive(inputs, edges)[edges.row].long()
        degree = torch.zeros(edges.num_keys + 1, dtype=torch.long).index_add(0, edges.col, living)
        return super().bias(inputs, edges) / degree[edges.col, None].clamp(min=1)


class LivingInTheFirstCopy(LivingNodesCount):
    """Takes the deleted nodes of the first copy for those of all."""

    def alive(self, inputs, edges):
        found = super().alive(inputs, edges)
        return found[0] if found.dim() == 2 else found


class KeepsTypes(SoundTerm):
    """Keeps a field of the edges with the pairs, which other relations and calls share."""

    def weight(self, inputs, edges):
        if "types" not in edges.derived:
            edges.derived["types"] = edges.coalesce(inputs.field("edge_type"))
        return edges.derived["types"].to(self.rate.dtype)


class KeepsTheLiving(SoundTerm):
    """Keeps with the pairs how many living targets each source has."""

    def bias(self, inputs, edges):
        alive = inputs.dst.alive
        if alive is None:
            alive = torch.ones(edges.num_queries, dtype=torch.bool)
        if alive.dim() == 2:
            raise ValueError("copies with deleted nodes of their own would share one bias")
        if "living" not in edges.derived:
            living = torch.zeros(edges.num_keys + 1, dtype=torch.long)
            edges.derived["living"] = living.index_add(0, edges.col, alive[edges.row].long())
        return super().bias(inputs, edges) / edges.derived["living"][edges.col, None].clamp(min=1)


class LastWeights(SoundTerm):
    """bias() takes what the last call of pairs() left with the pairs."""

    def pairs(self, inputs):
        edges = super().pairs(inputs)
        edges.derived["weights"] = super().weight(inputs, edges)
        return edges

    def weight(self, inputs, edges):
        return edges.derived["weights"].to(self.rate.dtype)


class ParityOfNodes(SoundTerm):
    """Pairs follow the numbers of the rows, which an edge set of a batch does not start anew."""

    def bias(self, inputs, edges):
        return super().bias(inputs, edges) + (edges.col % 2)[:, None]


class SeedsTorch(SoundTerm):
    """Draws the same numbers each time, and lets the whole program do so."""

    def __init__(self, context, options):
        super().__init__(context, options)
        torch.manual_seed(0)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.rate)


class SeedsPython(SoundTerm):
    def bias(self, inputs, edges):
        random.seed(0)
        return super().bias(inputs, edges) * random.random()


class DrawsWithNumPy(SoundTerm):
    def __init__(self, context, options):
        super().__init__(context, options)
        with torch.no_grad():
            self.rate.mul_(torch.from_numpy(np.random.rand(context.heads)))  # noqa: NPY002


class SetsDefaultDtype(SoundTerm):
    def __init__(self, context, options):
        super().__init__(context, options)
        torch.set_default_dtype(torch.float64)


class DrawsInVain(SoundTerm):
    """Noise is for training alone, but drawn in evaluation, too."""

    def bias(self, inputs, edges):
        noise = 1 + 0.1 * torch.randn(edges.num_pairs, 1)
        bias = super().bias(inputs, edges)
        return bias * noise if self.training else bias


class DrawsInTraining(SoundTerm):
    """Sound: what it draws in training torch's seed decides."""

    def bias(self, inputs, edges):
        return nn.functional.dropout(super().bias(inputs, edges), 0.5, self.training)


class WritesToPairs(SoundTerm):
    def bias(self, inputs, edges):
        edges.row.clamp_(max=edges.num_queries - 1)
        return super().bias(inputs, edges)


class ReplacesField(SoundTerm):
    def bias(self, inputs, edges):
        inputs.fields[self.field] = inputs.edge_attr(self.field) * 2
        return super().bias(inputs, edges)


class ParametersInList(SoundTerm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.more = [nn.Parameter(torch.ones(context.heads))]

    def bias(self, inputs, edges):
        return super().bias(inputs, edges) * self.more[0].to(self.rate.dtype)


class OneParameterForAll(SoundTerm):
    shared = nn.Parameter(torch.ones(3))

    def __init__(self, context, options):
        super().__init__(context, options)
        self.rate = self.shared


class ListOptions(WeightOptions):
    powers: list[float] = Field(default_factory=lambda: [2.0, 1.0])
    "Powers of the weight."


class SortsOptions(SoundTerm):
    def __init__(self, context, options):
        super().__init__(context, options)
        options.powers.sort()


class KeepsBias(SoundTerm):
    def bias(self, inputs, edges):
        self.last = super().bias(inputs, edges)
        return self.last


class Categories(SoundTerm):
    """Sound: a learned bias for each relation type, summed where edges occur twice."""

    def __init__(self, context, options):
        super().__init__(context, options)
        self.rate = nn.Parameter(torch.ones(2, context.heads))

    def pairs(self, inputs):
        return inputs.edges_from_index("edge_index")

    def bias(self, inputs, edges):
        rows = nn.functional.one_hot(inputs.field("edge_type"), len(self.rate))
        return edges.coalesce(rows.to(self.rate.dtype)) @ self.rate


class SummedCategories(Categories):
    """The sum of two relation types is taken for one."""

    def bias(self, inputs, edges):
        return self.rate[edges.coalesce(inputs.field("edge_type")).view(-1)]


class LastCategory(Categories):
    def bias(self, inputs, edges):
        types = inputs.field("edge_type")
        last = types.new_zeros(edges.num_pairs)
        last[edges.pair_of] = types[edges.edge_of]
        return self.rate[last]


class ToHigherNumbers(EdgeTerm):
    """Takes the numbers of nodes for an order of theirs."""

    def __init__(self, context, options):
        super().__init__()

    def pairs(self, inputs):
        edges = inputs.edges_from_index("edge_index")
        kept = edges.edge_index()[:, edges.col < edges.row]
        return EdgeSet.from_edge_index(kept, edges.num_keys, edges.num_queries)


class FirstSources(SoundTerm):
    """The bias falls with the place of a source among those of its target."""

    def bias(self, inputs, edges):
        bias = super().bias(inputs, edges)
        if not edges.num_pairs:
            return bias
        place = torch.arange(edges.num_pairs) - edges.rowptr[edges.row]
        return bias / (1 + place[:, None])


class UnsortedPairs(SoundTerm):
    def pairs(self, inputs):
        good = super().pairs(inputs)
        flipped = [t.flip(0) for t in (good.row, good.col)]
        return EdgeSet(*flipped, good.rowptr, good.num_queries, good.num_keys)


class NoPairs(SoundTerm):
    def pairs(self, inputs):
        return inputs.field("edge_index")


class SquarePairs(SoundTerm):
    """As many targets as sources."""

    def pairs(self, inputs):
        num_src = inputs.src.num_rows
        return EdgeSet.from_edge_index(inputs.rows(inputs.field("edge_index")), num_src, num_src)


class IndexForRows(SoundTerm):
    """Takes the numbers in an index for rows, which they are not where graphs of a batch are padded."""

    def pairs(self, inputs):
        index = inputs.field("edge_index")
        return EdgeSet.from_edge_index(index, inputs.src.num_rows, inputs.dst.num_rows)


class FirstDimension(SoundTerm):
    """Takes the first dimension of x for the nodes, which are the second one where graphs are copies."""

    def pairs(self, inputs):
        index = inputs.rows(inputs.field("edge_index"))
        return EdgeSet.from_edge_index(index, inputs.src.shape[0], inputs.dst.shape[0])


class TransposedMask(EdgeTerm):
    """Reads a dense mask the other way round than the edges."""

    def __init__(self, context, options):
        super().__init__()

    def pairs(self, inputs):
        if inputs.has("edge_index"):
            return inputs.edges_from_index("edge_index")
        return EdgeSet.from_dense(inputs.field("adj_mask").t())


class NoBias(SoundTerm):
    def bias(self, inputs, edges):
        return None


class MeanConv(nn.Module):
    """A convolution of its own: the mean of the sources' projected rows."""

    def __init__(self, context, options):
        super().__init__()
        self.lin = nn.LazyLinear(context.out_channels)

    def reset_parameters(self):
        self.lin.reset_parameters()

    def forward(self, x, edge_index):
        src, dst = (x, x) if isinstance(x, torch.Tensor) else x
        source, target = edge_index
        message = self.lin(src)[source]
        total = message.new_zeros(len(dst), message.size(1)).index_add(0, target, message)
        count = target.new_zeros(len(dst)).index_add(0, target, torch.ones_like(target))
        return total / self.divisor(count)[:, None]

    def divisor(self, count):
        return count.clamp(min=1)


class NoReset(MeanConv):
    reset_parameters = None


class ZeroOverZero(MeanConv):
    def divisor(self, count):
        return count


class ReversedConv(MeanConv):
    def forward(self, x, edge_index):
        return super().forward(x, edge_index.flip(0))


class NumbersConv(MeanConv):
    """Weights the sources of higher numbers than their target differently."""

    def forward(self, x, edge_index):
        rising = edge_index[:, edge_index[0] < edge_index[1]]
        return super().forward(x, edge_index) + super().forward(x, rising)


class CentredConv(MeanConv):
    """Subtracts the mean of all rows."""

    def forward(self, x, edge_index):
        rows = super().forward(x, edge_index)
        return rows - (rows.sum(0) / 100)


class UndescribedOptions(WeightOptions):
    sharpness: float = 1.0


class NoDefaultOptions(WeightOptions):
    k: int
    "How many."


class LooseOptions(WeightOptions):
    model_config: ClassVar = {"extra": "ignore"}


class TupleOptions(WeightOptions):
    levels: Any = (1, 2)
    "Comes back from JSON as a list."


class NoOptions(Options):
    pass


def message_kind(conv=MeanConv):
    return kind(
        conv,
        "mean_conv",
        options=NoOptions,
        produces=frozenset({"message"}),
        requires=(("edge_index", "hyperedge_index"),),
        inputs=None,
    )
