"""Small random networks of reactions and metabolites."""

import torch
from torch_geometric.data import HeteroData


def random_network(seed, reactions=25, metabolites=14, least=1):
    """Reactions of ``least`` to ``least + 2`` metabolites; every third also runs backwards, every fifth has a second clause."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high):
        return int(torch.randint(high, (), generator=generator))

    edges, signs, index, direction = [], [], [], []
    for r in range(reactions):
        chosen = torch.randperm(metabolites, generator=generator)[: least + draw(3)].tolist()
        sides = [1 if draw(2) else -1 for _ in chosen]
        for way in (1, -1) if r % 3 == 0 else (1,):
            for _ in range(2 if r % 5 == 0 else 1):
                edges += [(len(index), m) for m in chosen]
                signs += [way * side * (0.5 + draw(3)) for side in sides]
                index.append(r)
                direction.append(way)
    order = torch.randperm(len(edges), generator=generator)
    return signed_network(
        torch.tensor(edges).t()[:, order],
        torch.tensor(signs)[order],
        metabolites,
        torch.tensor(index),
        torch.tensor(direction),
    )


def signed_network(edge_index, stoichiometry, metabolites, reaction_index, direction=None):
    """A graph of reaction nodes, each a direction of a reaction, and metabolites."""
    data = HeteroData()
    data["reaction"].num_nodes = len(reaction_index)
    data["reaction"].reaction_index = reaction_index
    data["reaction"].direction = torch.ones_like(reaction_index) if direction is None else direction
    data["metabolite"].num_nodes = metabolites
    relation = data["reaction", "rmr", "metabolite"]
    relation.edge_index, relation.stoichiometry = edge_index, stoichiometry
    return data


def pathways(*reactions):
    """One node for each reaction, given as its signed metabolites: ``{"a": -1, "b": 1}``; and the metabolites' names."""
    names = list(dict.fromkeys(m for reaction in reactions for m in reaction))
    edges = [(v, names.index(m)) for v, reaction in enumerate(reactions) for m in reaction]
    signs = [float(s) for reaction in reactions for s in reaction.values()]
    graph = signed_network(
        torch.tensor(edges).t(), torch.tensor(signs), len(names), torch.arange(len(reactions))
    )
    return graph, names
