"""Labels: flux-balance simulation and measured tables."""
