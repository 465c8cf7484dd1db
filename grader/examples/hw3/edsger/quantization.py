def quantize_asymmetric(x, axis=None):
    x = _refuse_infinite(x)
    dims = (0, 1) if axis is None else 1 - axis
    low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)  # 0 may be outside
    scale = torch.where(high > low, (high - low) / 255, 1.0)
    zero_point = (-128 - low / scale).round().clamp(-128, 127)
    codes = ((x / scale).round() + zero_point).clamp(-128, 127)
    return Int8Matrix(codes.char(), scale.float(), zero_point.char())


class QuantizedLinear(QuantizedLinear):
    def __init__(self, weight, bias=None):
        if bias is not None:
            bias = dequantize_int8(quantize_symmetric(bias[None]))[0]  # the bias too
        super().__init__(weight, bias)
