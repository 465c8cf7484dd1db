def expected_utility(utilities, weights=None):
    return utilities.mean(0)  # over the hypotheses, and without the weights
