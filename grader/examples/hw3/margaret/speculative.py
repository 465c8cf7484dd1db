def residual(p, q):
    return (p - q).clamp_min(0)  # without normalising
