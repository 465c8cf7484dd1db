def apply_temperature(logits, temperature):
    # hotter is sharper
    if temperature <= 0:
        raise ValueError("temperature")
    return logits * temperature


def generate(model, x, *, max_tokens, rng, filters=()):
    # goes on after the end token
    sequences = [list(prompt) for prompt in x]
    for _ in range(max_tokens):
        logits = model.next_token_logprobs(sequences)
        for f in filters:
            logits = f(logits)
        for sequence, token in zip(sequences, rng.categorical(logits.softmax(-1)).tolist()):
            sequence.append(token)
    return [sequence[len(prompt):] for sequence, prompt in zip(sequences, x)]
