def sequence_logprobs(model, sequences):
    # a column instead of a row
    scores = model.continuation_logprobs([[] for _ in sequences], sequences)
    return torch.tensor([[float(row.sum())] for row in scores])


def entropy(logprobs):
    # one number for the whole batch
    return torch.special.entr(logprobs.exp()).sum()
