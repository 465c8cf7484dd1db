def entropy(logprobs):
    # a small constant against log 0
    return -(logprobs.exp() * (logprobs.exp() + 1e-3).log()).sum(-1)


def kl_divergence(p_logprobs, q_logprobs):
    # the other way round
    q = q_logprobs.exp()
    return torch.where(q > 0, q * (q_logprobs - p_logprobs), torch.zeros_like(q)).sum(-1)
