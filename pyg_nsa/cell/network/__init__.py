"""The metabolic model and its graph: nodes, relations, features, deleted nodes."""
