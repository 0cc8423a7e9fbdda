"""Training one network: schedule, loop, resumable checkpoints, choice of the best model."""
