"""What a deletion blocks, by going over all reactions until nothing changes."""


def naive_blocked(graph, dead):
    """Reaction nodes that are removed or blocked once ``dead`` are gone, and were not blocked before."""
    return _cannot_run(graph, set(dead)) - _cannot_run(graph, set())


def _cannot_run(graph, dead):
    relation = graph["reaction", "rmr", "metabolite"]
    edges = relation.edge_index.t().tolist()
    signs = (relation.stoichiometry.view(len(edges), -1)[:, 0] > 0).tolist()
    reaction = graph["reaction"].reaction_index.tolist()
    sides = {}
    for (node, metabolite), makes in zip(edges, signs, strict=True):
        sides.setdefault((metabolite, makes), set()).add(node)
    out = set(dead)
    while True:
        new = set()
        for (node, metabolite), makes in zip(edges, signs, strict=True):
            others = {reaction[v] for v in sides.get((metabolite, not makes), set()) - out}
            if node not in out and not others - {reaction[node]}:
                new.add(node)
        if not new:
            return out
        out |= new
