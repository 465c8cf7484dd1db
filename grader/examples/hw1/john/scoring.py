def entropy(logprobs):
    # 0 * log 0 is NaN
    return -(logprobs.exp() * logprobs).sum(-1)


def kl_divergence(p_logprobs, q_logprobs):
    return (p_logprobs.exp() * (p_logprobs - q_logprobs)).sum(-1)
