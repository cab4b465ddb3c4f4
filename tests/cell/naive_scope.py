"""What can run and what can be made, by going over all reactions until nothing changes."""


def naive_scope(graph, given, dead):
    """Reaction nodes that run and metabolites that are there, from the metabolites ``given`` and without the nodes ``dead``."""
    relation = graph["reaction", "rmr", "metabolite"]
    edges = relation.edge_index.t().tolist()
    signs = (relation.stoichiometry.view(len(edges), -1)[:, 0] > 0).tolist()
    count = graph["reaction"].num_nodes
    uses, makes = [set() for _ in range(count)], [set() for _ in range(count)]
    for (node, metabolite), positive in zip(edges, signs, strict=True):
        (makes if positive else uses)[node].add(metabolite)
    runs, there = set(), set(given)
    while True:
        new = {v for v in range(count) if v not in dead and v not in runs and uses[v] <= there}
        if not new:
            return runs, there
        runs |= new
        there |= set().union(*(makes[v] for v in new))
