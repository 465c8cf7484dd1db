"""The reference server of the final project, and the two baselines: engines for the given app."""
