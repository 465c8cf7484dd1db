"""My own helper module: all the softmaxes and entropies of both files."""

import torch


def probabilities(logits):
    shifted = logits - logits.max(dim=-1, keepdim=True).values
    weights = shifted.exp()
    return weights / weights.sum(dim=-1, keepdim=True)


def entropy(probs):
    return torch.where(probs > 0, -probs * probs.clamp_min(1e-300).log(), torch.zeros_like(probs)).sum(dim=-1)
