"""What predictions are worth: metrics, how sure they are, and comparisons of models."""
