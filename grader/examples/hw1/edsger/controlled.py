def dexperts_logprobs(base_logits, expert_logits, antiexpert_logits, alpha):
    # mixes probabilities instead of logits
    base, expert, anti = (z.softmax(-1) for z in (base_logits, expert_logits, antiexpert_logits))
    mixed = (base + alpha * (expert - anti)).clamp(min=0)
    return (mixed / mixed.sum(-1, keepdim=True)).log()


def guided_logprobs(model, prompts, continuations, guidance_scale):
    # the scale of another paper: 0 is the conditional model
    if guidance_scale < 0 or len(prompts) != len(continuations):
        raise ValueError("guidance_scale")
    conditional = model.next_token_logprobs([[*x, *y] for x, y in zip(prompts, continuations)])
    unconditional = model.next_token_logprobs(continuations)
    return ((1 + guidance_scale) * conditional - guidance_scale * unconditional).log_softmax(-1)
