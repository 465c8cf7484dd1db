_pad_chunks = pad_chunks


def pad_chunks(starts, chunks):
    token_ids, positions, last = _pad_chunks(starts, chunks)
    return token_ids, positions, torch.full_like(last, token_ids.shape[1] - 1)  # as if all were as long
