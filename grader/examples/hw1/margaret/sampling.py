def top_p_filter(logits, top_p):
    # the token that crosses the threshold is lost
    if not 0 < top_p <= 1:
        raise ValueError("top_p")
    probs, order = logits.softmax(-1).sort(descending=True)
    removed = probs.cumsum(-1) > top_p
    removed[..., 0] = False
    return logits.masked_fill(torch.zeros_like(removed).scatter(-1, order, removed), -torch.inf)


def eta_filter(logits, eta_cutoff):
    # the minimum is forgotten
    if not 0 <= eta_cutoff < 1:
        raise ValueError("eta_cutoff")
    probs = logits.softmax(-1)
    entropy = torch.special.entr(probs).sum(-1, keepdim=True)
    kept = probs >= eta_cutoff**0.5 * torch.exp(-entropy)
    kept.scatter_(-1, probs.argmax(-1, keepdim=True), True)
    return logits.masked_fill(~kept, -torch.inf)
