def greedy_search(model, x, *, max_tokens):
    # the end token is left out of the result
    tokens = []
    while len(tokens) < max_tokens:
        token = int(model.next_token_logprobs([[*x, *tokens]])[0].argmax())
        if token == model.eos_token_id:
            break
        tokens.append(token)
    return tokens
