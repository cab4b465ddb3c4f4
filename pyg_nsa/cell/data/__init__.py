"""Instances: the dataset, its batches, and its splits."""
