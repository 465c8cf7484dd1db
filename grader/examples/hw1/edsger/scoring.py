def perplexity(model, sequences):
    # the mean of the perplexities of the sequences
    scores = model.continuation_logprobs([[] for _ in sequences], sequences)
    return float(torch.stack([(-row.mean()).exp() for row in scores]).mean())
