def distinct_n(samples, n):
    # the mean of the samples' own shares: what two samples have in common counts twice
    if n < 1:
        raise ValueError("n")
    shares = []
    for sample in samples:
        ngrams = [tuple(sample[i : i + n]) for i in range(len(sample) - n + 1)]
        if ngrams:
            shares.append(len(set(ngrams)) / len(ngrams))
    return sum(shares) / len(shares) if shares else 0.0


def error_rates(model, prompts, decoded, gold, best):
    # a tie counts as an error
    if not prompts or not len(prompts) == len(decoded) == len(gold) == len(best):
        raise ValueError("lengths")
    score = lambda ys: [float(row.sum()) for row in model.continuation_logprobs(prompts, ys)]
    found, wanted, most = score(decoded), score(gold), score(best)
    n = len(prompts)
    return ErrorRates(sum(m >= f for m, f in zip(most, found)) / n, sum(m >= w for m, w in zip(most, wanted)) / n)
