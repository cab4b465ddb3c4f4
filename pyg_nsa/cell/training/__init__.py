"""Training: runs that can be stopped, resumed and spread over processes; predictions of trained models."""
