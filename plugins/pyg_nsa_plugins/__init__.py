"""First-party edge kinds of pyg_nsa, found through the entry points like anyone else's."""
