"""HeteroCellNSA, and the models that it is compared with."""
