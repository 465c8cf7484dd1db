def ancestral_sample(logits, rng):
    # a list instead of a tensor
    return rng.categorical(logits.softmax(-1)).unsqueeze(-1).tolist()


def min_p_filter(logits, min_p):
    # only what is left, in a tensor of another size
    probs = logits.softmax(-1)
    return logits[probs >= min_p * probs.max()]
