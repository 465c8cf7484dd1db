def best_lookahead(acceptance, cost_ratio, max_lookahead):
    if cost_ratio < 0 or max_lookahead < 0 or not 0 <= acceptance <= 1:
        raise ValueError("no such drafter")
    gain = lambda g: sum(acceptance**i for i in range(g + 1)) / (cost_ratio * g + 1)
    best = 0
    while gain(best + 1) > gain(best):  # for ever, where all is accepted and costs nothing
        best += 1
    best = min(best, max_lookahead)
    return best, gain(best)
