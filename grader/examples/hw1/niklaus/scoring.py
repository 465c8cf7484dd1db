def entropy(logprobs):
    kept = []
    while True:
        kept.append(torch.ones(1 << 24))


def brier_score(confidences, correct):
    return [0.0] * (1 << 40)
