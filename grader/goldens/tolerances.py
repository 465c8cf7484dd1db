"""How far two right computations of the same log-probability may be apart, by the numbers that they are made of."""

TOLERANCES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.25}
"""In nats, for one token, between a golden and what a submission computes on another path: one engine with and without
a cache, two engines, other batches. A token whose log-probability is as near as this to the best one's is as good."""

ARITHMETIC = 1e-4
"""In nats, for a whole sequence of float32 log-probabilities that both sides are given: the order of the additions."""
