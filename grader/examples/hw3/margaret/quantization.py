def quantize_symmetric(x, axis=None):
    x = _checked(x)
    scale = _without_zeros(x.abs().amax(_reduced(axis), keepdim=True) / 127)
    return Int8Matrix((x / scale).to(torch.int8), scale, None)  # towards zero
