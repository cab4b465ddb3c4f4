"""The perturbed cell: graphs of metabolic models, deletion labels, and the model trained on them."""
