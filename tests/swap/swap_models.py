"""Models as users of PyG write them, and a small graph with a node classification task."""

import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import (
    GATConv,
    HANConv,
    HeteroConv,
    HGTConv,
    Linear,
    SAGEConv,
    TransformerConv,
    to_hetero,
)

CITES = ("paper", "cites", "paper")
WRITES = ("author", "writes", "paper")
BY = ("paper", "by", "author")
IN = ("paper", "in", "venue")
HOLDS = ("venue", "holds", "paper")
SIZES = {"paper": 24, "author": 15, "venue": 5}
COLUMNS = {"paper": 7, "author": 6, "venue": 4}
CLASSES = 3


def make_data():
    g = torch.Generator().manual_seed(3)
    data = HeteroData()
    for t, n in SIZES.items():
        data[t].x = torch.randn(n, COLUMNS[t], generator=g)
    data["paper"].y = torch.randint(CLASSES, (SIZES["paper"],), generator=g)
    for (src, rel, dst), n in {CITES: 60, WRITES: 40, BY: 40, IN: 24, HOLDS: 24}.items():
        index = [torch.randint(SIZES[t], (n,), generator=g) for t in (src, dst)]
        data[src, rel, dst].edge_index = torch.stack(index)
    data[CITES].edge_attr = torch.randn(60, 2, generator=g)
    return data


METADATA = make_data().metadata()


class Stack(nn.Module):
    """A stack of HeteroConv in a ModuleList, with lazy channels."""

    def __init__(self, hidden=16, layers=2):
        super().__init__()
        self.convs = nn.ModuleList()
        for _ in range(layers):
            self.convs.append(
                HeteroConv(
                    {
                        CITES: GATConv((-1, -1), hidden // 2, heads=2, add_self_loops=False),
                        WRITES: SAGEConv((-1, -1), hidden),
                        BY: SAGEConv((-1, -1), hidden),
                        IN: GATConv((-1, -1), hidden, add_self_loops=False),
                        HOLDS: SAGEConv((-1, -1), hidden),
                    },
                    aggr="mean",
                )
            )
        self.lin = Linear(hidden, CLASSES)

    def forward(self, x_dict, edge_index_dict):
        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict)
            x_dict = {key: x.relu() for key, x in x_dict.items()}
        return self.lin(x_dict["paper"])


class WithAttributes(nn.Module):
    """Edge attributes and dictionaries by keyword; one node type is only a source."""

    def __init__(self):
        super().__init__()
        self.conv = HeteroConv(
            {
                CITES: TransformerConv(7, 4, heads=2, edge_dim=2),
                WRITES: SAGEConv((6, 7), 8),
            }
        )
        self.lin = nn.Linear(8, CLASSES)

    def forward(self, x_dict, edge_index_dict, edge_attr_dict):
        out = self.conv(x_dict, edge_index_dict, edge_attr_dict=edge_attr_dict)
        assert list(out) == ["paper"]
        return self.lin(out["paper"])


class HGT(nn.Module):
    def __init__(self, hidden=16, heads=2, layers=2):
        super().__init__()
        self.lin_dict = nn.ModuleDict({t: Linear(-1, hidden) for t in METADATA[0]})
        self.convs = nn.ModuleList(
            [HGTConv(hidden, hidden, METADATA, heads) for _ in range(layers)]
        )
        self.lin = Linear(hidden, CLASSES)

    def forward(self, x_dict, edge_index_dict):
        x_dict = {t: self.lin_dict[t](x).relu_() for t, x in x_dict.items()}
        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict)
        return self.lin(x_dict["paper"])


HAN_METADATA = (["paper", "author"], [CITES, WRITES])


class HAN(nn.Module):
    """Authors only send, so their output is None."""

    def __init__(self, in_channels=-1, hidden=16, heads=4, weights=False):
        super().__init__()
        self.han_conv = HANConv(
            in_channels, hidden, heads=heads, dropout=0.6, metadata=HAN_METADATA
        )
        self.lin = nn.Linear(hidden, CLASSES)
        self.weights = weights

    def forward(self, x_dict, edge_index_dict):
        x_dict = {t: x_dict[t] for t in HAN_METADATA[0]}
        edge_index_dict = {e: edge_index_dict[e] for e in HAN_METADATA[1]}
        if self.weights:
            out, _ = self.han_conv(x_dict, edge_index_dict, return_semantic_attention_weights=True)
        else:
            out = self.han_conv(x_dict, edge_index_dict)
        assert set(out) == {"paper", "author"}
        assert out["author"] is None
        return self.lin(out["paper"])


class Shared(nn.Module):
    """One layer, used twice and reachable by two names."""

    def __init__(self, hidden=8):
        super().__init__()
        self.first = nn.ModuleDict({t: Linear(-1, hidden) for t in ("paper", "author")})
        conv = HeteroConv({e: SAGEConv((hidden, hidden), hidden) for e in (CITES, WRITES, BY)})
        self.conv = conv
        self.steps = nn.ModuleList([conv, conv])
        self.lin = nn.Linear(hidden, CLASSES)

    def forward(self, x_dict, edge_index_dict):
        x_dict = {t: lin(x_dict[t]) for t, lin in self.first.items()}
        for step in self.steps:
            x_dict = {t: F.elu(x) for t, x in step(x_dict, edge_index_dict).items()}
        return self.lin(x_dict["paper"])


class Encoder(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.layers = nn.ModuleList(
            [HeteroConv({e: SAGEConv((-1, -1), hidden) for e in METADATA[1]}) for _ in range(2)]
        )

    def forward(self, x_dict, edge_index_dict):
        for layer in self.layers:
            x_dict = layer(x_dict, edge_index_dict)
        return x_dict


class Nested(nn.Module):
    """Layers in a ModuleList inside of a submodule; the model takes a HeteroData."""

    def __init__(self, hidden=12):
        super().__init__()
        self.encoder = Encoder(hidden)
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))

    def forward(self, data):
        return self.head(self.encoder(data.x_dict, data.edge_index_dict)["paper"])


class GraphSAGE(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = SAGEConv((-1, -1), 16)
        self.conv2 = SAGEConv((-1, -1), CLASSES)

    def forward(self, x, edge_index):
        x = self.conv1(x, edge_index).relu()
        return self.conv2(x, edge_index)


def hetero_graphsage():
    return to_hetero(GraphSAGE(), METADATA, aggr="sum")


def call(model, data):
    if isinstance(model, Nested):
        return model(data)
    if isinstance(model, WithAttributes):
        return model(data.x_dict, data.edge_index_dict, data.edge_attr_dict)
    out = model(data.x_dict, data.edge_index_dict)
    return out["paper"] if isinstance(out, dict) else out


def train_an_epoch(model, data):
    """A few steps on the whole graph; the loss before and after."""
    model.eval()
    with torch.no_grad():
        call(model, data)  # lazy parameters
        before = F.cross_entropy(call(model, data), data["paper"].y)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.train()
    for _ in range(8):
        optimizer.zero_grad()
        F.cross_entropy(call(model, data), data["paper"].y).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return float(before), float(F.cross_entropy(call(model, data), data["paper"].y))
