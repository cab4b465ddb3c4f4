"""Names of the arguments of a heterogeneous call, without ``_dict``."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "GRAPH_FIELDS",
    "NODE_FIELDS",
    "NOTHING_READ",
    "ORDER",
    "POSITIONAL",
    "TERM_FIELDS",
    "ReadFields",
]

#: Keyword arguments (without ``_dict``) that say how the rows of a node type are organised.
NODE_FIELDS = ("mask", "pert_mask", "batch", "ptr", "x_ptr", "n_id")

#: Those that say which graph a node is of.
GRAPH_FIELDS = ("batch", "ptr", "x_ptr")

#: Fields of relations that only edge terms read; a PyG conv gets them only if its forward names them.
TERM_FIELDS = ("edge_set", "hyperedge_index", "adj_mask", "inc_mask", "stoichiometry")

#: Keyword argument (without ``_dict``) with the order of each node type's rows inside of a stack.
ORDER = "order"

#: Dictionaries that may be passed by place (without ``_dict``), in their order.
POSITIONAL = ("x", "edge_index", "edge_attr")


class ReadFields(NamedTuple):
    """Names of the fields that a layer's relations read, as far as they can be told."""

    anywhere: frozenset[str] = frozenset()
    of_nodes: frozenset[str] = frozenset()  # beside the rows; others are not to be given them


#: Of a layer that reads nothing but rows and edges.
NOTHING_READ = ReadFields()
