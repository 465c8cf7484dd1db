def typical_filter(logits, typical_p):
    if not 0 < typical_p <= 1:
        raise ValueError("typical_p")
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1, keepdim=True)
    order = (-logprobs - entropy).abs().argsort(-1)
    probs = logprobs.exp().gather(-1, order)
    kept = probs.cumsum(-1) - probs < typical_p
    return logits.masked_fill(~torch.zeros_like(kept).scatter(-1, order, kept), -torch.inf)


def apply_temperature(logits, temperature):
    return logits * float("nan")
