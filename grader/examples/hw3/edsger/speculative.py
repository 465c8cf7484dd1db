def expected_tokens(acceptance_rate, num_speculative_tokens):
    return (1 - acceptance_rate ** (num_speculative_tokens + 1)) / (1 - acceptance_rate)  # not for a rate of 1
