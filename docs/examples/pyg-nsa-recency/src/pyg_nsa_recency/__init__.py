"""The edge kind `recency_bias` for pyg_nsa: attention along the recent edges of temporal graphs."""
