from __future__ import annotations
def add_features(data, network, nodes, features): pass
