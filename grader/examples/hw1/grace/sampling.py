from hw1.numerics import probabilities


def ancestral_sample(logits, rng):
    return rng.categorical(probabilities(logits))


def min_p_filter(logits, min_p):
    if min_p < 0 or min_p > 1:
        raise ValueError(f"min_p should be between 0 and 1 but is {min_p}")
    probs = probabilities(logits)
    return torch.where(probs < min_p * probs.max(dim=-1, keepdim=True).values, -torch.inf, logits)
