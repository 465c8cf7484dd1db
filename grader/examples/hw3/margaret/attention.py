def sliding_window_mask(query_positions, key_positions, window):
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    return (distance >= 0) & (distance <= window) & (key_positions >= 0)[:, None, :]  # one too many
