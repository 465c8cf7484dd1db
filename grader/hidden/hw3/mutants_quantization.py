"""Plausible wrong solutions of hw3.quantization: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module. Each is the reference with one passage
written wrongly.
"""

# ruff: noqa: E501 (a passage and what replaces it read best on one line)
from functools import partial

from grader.hidden.rewriting import rewritten
from grader.reference.hw3 import quantization as reference

_but = partial(rewritten, reference)


quantize_symmetric__truncates = _but("quantize_symmetric", (".round()", ".trunc()"))
quantize_symmetric__adds_a_half_and_truncates = _but(
    "quantize_symmetric", ("(x / scale).round()", "(x / scale + 0.5).trunc()")
)
quantize_symmetric__largest_without_sign = _but("quantize_symmetric", ("x.abs().amax", "x.amax"))
quantize_symmetric__over_128 = _but("quantize_symmetric", ("/ 127", "/ 128"))
quantize_symmetric__down_to_minus_128 = _but("quantize_symmetric", ("/ 127", "/ 127.5"), ("clamp(-127", "clamp(-128"))
quantize_symmetric__divides_by_zero = _but("quantize_symmetric", ("_without_zeros(x", "(x"))
quantize_symmetric__zeros_have_a_tiny_scale = _but(
    "quantize_symmetric", ("_without_zeros(x.abs()", "(x.abs()"), ("/ 127)", "/ 127).clamp(min=1e-8)")
)
quantize_symmetric__other_axis = _but(
    "quantize_symmetric", ("_reduced(axis)", "_reduced(None if axis is None else 1 - axis)")
)
quantize_symmetric__always_per_tensor = _but("quantize_symmetric", ("_reduced(axis)", "(0, 1)"))
quantize_symmetric__flat_scale = _but(
    "quantize_symmetric", (".to(torch.int8), scale, None", ".to(torch.int8), scale.flatten(), None")
)
quantize_symmetric__inverse_scale = _but(
    "quantize_symmetric", (".to(torch.int8), scale, None", ".to(torch.int8), 1 / scale, None")
)
quantize_symmetric__in_the_type_of_x = _but(
    "quantize_symmetric",
    ("x = _checked(x)", "original = x; x = _checked(x).to(original.dtype)"),
    ("/ 127)", "/ 127).to(x.dtype)"),
    ("scale, None", "scale.float(), None"),
)
quantize_symmetric__codes_stay_floats = _but("quantize_symmetric", (".to(torch.int8)", ""))
quantize_symmetric__takes_nan = _but("quantize_symmetric", ("_checked(x)", "x.float()"))

quantize_asymmetric__zero_point_not_rounded = _but(
    "quantize_asymmetric",
    ("(-128 - low / scale).round()", "(-128 - low / scale)"),
    ("((x / scale).round() + zero_point)", "(x / scale + zero_point).round()"),
)
quantize_asymmetric__zero_point_truncated = _but(
    "quantize_asymmetric", ("(-128 - low / scale).round()", "(-128 - low / scale).trunc()")
)
quantize_asymmetric__zero_point_wraps = _but(
    "quantize_asymmetric",
    (".clamp(max=0)", ""), (".clamp(min=0)", ""),
    (".round().clamp(-128, 127)\n    codes", ".round().long().to(torch.int8)\n    codes"),
)  # fmt: skip
quantize_asymmetric__range_without_zero = _but("quantize_asymmetric", (".clamp(max=0)", ""), (".clamp(min=0)", ""))
quantize_asymmetric__range_from_the_least = _but("quantize_asymmetric", (".clamp(max=0)", ""))
quantize_asymmetric__range_to_the_largest = _but("quantize_asymmetric", (".clamp(min=0)", ""))
quantize_asymmetric__256_steps = _but("quantize_asymmetric", ("/ 255", "/ 256"))
quantize_asymmetric__unsigned_codes = _but(
    "quantize_asymmetric", ("-128 - low", "-low"), ("clamp(-128, 127)\n    return", "clamp(0, 255)\n    return"),
    ("clamp(-128, 127)\n    codes", "clamp(0, 255)\n    codes"), ("codes.to(torch.int8)", "codes.to(torch.uint8)"), ("zero_point.to(torch.int8)", "zero_point.to(torch.uint8)"),
)  # fmt: skip
quantize_asymmetric__codes_wrap = _but(
    "quantize_asymmetric",
    ("((x / scale).round() + zero_point).clamp(-128, 127)", "(((x / scale).round() + zero_point + 128) % 256 - 128)"),
)
quantize_asymmetric__truncates = _but("quantize_asymmetric", ("(x / scale).round()", "(x / scale).trunc()"))
quantize_asymmetric__divides_by_zero = _but("quantize_asymmetric", ("_without_zeros(", "("))
quantize_asymmetric__other_axis = _but(
    "quantize_asymmetric", ("_reduced(axis)", "_reduced(None if axis is None else 1 - axis)")
)
quantize_asymmetric__from_zero_symmetrically = _but(
    "quantize_asymmetric", ("_without_zeros((high - low) / 255)", "_without_zeros(2 * torch.maximum(high, -low) / 255)")
)
quantize_asymmetric__zero_point_of_the_other_sign = _but(
    "quantize_asymmetric", ("zero_point.to(torch.int8)", "(-zero_point).clamp(-128, 127).to(torch.int8)")
)
quantize_asymmetric__takes_nan = _but("quantize_asymmetric", ("_checked(x)", "x.float()"))

_DIFFERENCE = "codes if matrix.zero_point is None else codes - matrix.zero_point"
dequantize_int8__adds_the_zero_point = _but("dequantize_int8", ("codes - matrix", "codes + matrix"))
dequantize_int8__difference_in_int8 = _but("dequantize_int8", ("matrix.codes.float()", "matrix.codes"))
dequantize_int8__zero_point_after_the_scale = _but(
    "dequantize_int8",
    (
        f"matrix.scale * ({_DIFFERENCE})",
        "matrix.scale * codes - (0 if matrix.zero_point is None else matrix.zero_point)",
    ),
)
dequantize_int8__no_zero_point = _but("dequantize_int8", (_DIFFERENCE, "codes"))
dequantize_int8__in_half_precision = _but(
    "dequantize_int8", ("matrix.scale * (", "matrix.scale.half() * ("), (".float()", ".half()")
)
dequantize_int8__scale_rounded_to_half = _but(
    "dequantize_int8", ("matrix.scale * (", "matrix.scale.half().float() * (")
)
dequantize_int8__in_float64 = _but("dequantize_int8", (".float()", ".double()"))
dequantize_int8__scale_of_rows_only = _but("dequantize_int8", ("matrix.scale * (", "matrix.scale.reshape(-1, 1) * ("))
dequantize_int8__divides = _but("dequantize_int8", ("matrix.scale * (", "(1 / matrix.scale) * ("))

pack_int4__high_bits_first = _but(
    "pack_int4", ("nibbles[:, ::2] | nibbles[:, 1::2] << 4", "nibbles[:, ::2] << 4 | nibbles[:, 1::2]")
)
pack_int4__sign_not_masked = _but("pack_int4", ("codes & 0xF", "codes"))
pack_int4__halves_of_the_row = _but(
    "pack_int4",
    (
        "nibbles[:, ::2] | nibbles[:, 1::2] << 4",
        "nibbles[:, : nibbles.shape[1] // 2] | nibbles[:, nibbles.shape[1] // 2 :] << 4",
    ),
)
pack_int4__along_columns = _but(
    "pack_int4",
    (
        "nibbles[:, ::2] | nibbles[:, 1::2] << 4",
        "nibbles.T.reshape(nibbles.shape)[:, ::2] | nibbles.T.reshape(nibbles.shape)[:, 1::2] << 4",
    ),
)
pack_int4__offset_binary = _but("pack_int4", ("codes & 0xF", "codes + 8"))
pack_int4__odd_column_lost = _but(
    "pack_int4", ("pad(codes & 0xF, (0, codes.shape[1] % 2))", "(codes & 0xF)[:, : codes.shape[1] // 2 * 2]")
)
pack_int4__filled_with_ones = _but("pack_int4", ("codes.shape[1] % 2)", "codes.shape[1] % 2), value=15"))
pack_int4__takes_all_codes = _but("pack_int4", ("if bool(", "if False and bool("))
pack_int4__takes_8 = _but("pack_int4", ("codes > 7", "codes > 8"))
pack_int4__refuses_minus_8 = _but("pack_int4", ("codes < -8", "codes < -7"))
pack_int4__signed_bytes = _but("pack_int4", ("<< 4", "<< 4).to(torch.int8)"), ("return nibbles", "return (nibbles"))

unpack_int4__no_sign = _but("unpack_int4", ("(nibbles ^ 8) - 8", "nibbles"))
unpack_int4__offset_binary = _but("unpack_int4", ("(nibbles ^ 8) - 8", "nibbles - 8"))
unpack_int4__sign_from_8_on_wrong = _but(
    "unpack_int4", ("(nibbles ^ 8) - 8", "nibbles - 16 * (nibbles > 8).to(torch.int8)")
)
unpack_int4__ones_complement = _but("unpack_int4", ("(nibbles ^ 8) - 8", "nibbles - 15 * (nibbles > 7).to(torch.int8)"))
unpack_int4__high_bits_first = _but("unpack_int4", ("[packed & 0xF, packed >> 4]", "[packed >> 4, packed & 0xF]"))
unpack_int4__arithmetic_shift = _but(
    "unpack_int4", ("packed >> 4]", "(packed.view(torch.int8) >> 4).view(torch.uint8)]")
)
unpack_int4__halves_of_the_row = _but(
    "unpack_int4",
    ("torch.stack([packed & 0xF, packed >> 4], dim=-1).flatten(1)", "torch.cat([packed & 0xF, packed >> 4], dim=1)"),
)
unpack_int4__keeps_the_filler = _but("unpack_int4", ("[:, :columns]", ""))
unpack_int4__takes_any_number = _but("unpack_int4", ("packed.shape[1] != (columns + 1) // 2", "False"))
unpack_int4__only_too_many = _but("unpack_int4", ("packed.shape[1] != (columns", "packed.shape[1] < (columns"))

quantize_int4__truncates = _but("quantize_int4", (".round()", ".trunc()"))
quantize_int4__groups_of_outputs = _but(
    "quantize_int4",
    (
        "weight, columns = _checked(weight), weight.shape[1]",
        "columns = weight.shape[1]; weight = _checked(weight).T.reshape(weight.shape)",
    ),
)
quantize_int4__one_scale_a_row = _but(
    "quantize_int4", (".abs().amax(2)", ".abs().amax((1, 2), keepdim=True)[:, :, 0].expand(-1, groups.shape[1])")
)
quantize_int4__last_group_dropped = _but(
    "quantize_int4",
    (
        "pad(weight, (0, -columns % min(group_size, columns)))",
        "weight[:, : columns // min(group_size, columns) * min(group_size, columns)]",
    ),
)
quantize_int4__last_group_filled_with_the_largest = _but(
    "quantize_int4", ("% min(group_size, columns)))", "% min(group_size, columns)), value=float(weight.abs().max()))")
)
quantize_int4__last_group_has_its_neighbours_scale = _but(
    "quantize_int4",
    ("    codes = ", "    if columns % group_size and scale.shape[1] > 1: scale[:, -1] = scale[:, -2]\n    codes = "),
)
quantize_int4__fitting_groups_only = _but(
    "quantize_int4", ("if group_size < 1:", "if group_size < 1 or weight.shape[1] % group_size:")
)
quantize_int4__filler_is_kept = _but("quantize_int4", (".flatten(1)[:, :columns]", ".flatten(1)"))
quantize_int4__over_8 = _but("quantize_int4", ("amax(2) / 7", "amax(2) / 8"))
quantize_int4__down_to_minus_8 = _but("quantize_int4", ("amax(2) / 7", "amax(2) / 7.5"), ("clamp(-7", "clamp(-8"))
quantize_int4__divides_by_zero = _but("quantize_int4", ("_without_zeros(", "("))
quantize_int4__largest_without_sign = _but("quantize_int4", ("groups.abs().amax", "groups.amax"))
quantize_int4__scale_in_half_precision = _but("quantize_int4", ("amax(2) / 7)", "amax(2) / 7).bfloat16().float()"))
quantize_int4__in_the_type_of_the_weight = _but(
    "quantize_int4",
    ("weight, columns = _checked(weight), weight.shape[1]", "_checked(weight); columns = weight.shape[1]"),
)
quantize_int4__takes_nan = _but("quantize_int4", ("_checked(weight)", "weight.float()"))
quantize_int4__takes_no_group = _but(
    "quantize_int4",
    ("group_size < 1", "group_size == 0"),
    ("min(group_size, columns)", "min(abs(group_size), columns)"),
)

dequantize_int4__divides = _but("dequantize_int4", ("_scale_of_each(matrix) *", "1 / _scale_of_each(matrix) *"))
dequantize_int4__first_scale_of_the_row = _but("dequantize_int4", ("_scale_of_each(matrix)", "matrix.scale[:, :1]"))
dequantize_int4__scales_interleaved = _but(
    "dequantize_int4",
    ("_scale_of_each(matrix)", "matrix.scale[:, torch.arange(matrix.columns) % matrix.scale.shape[1]]"),
)
dequantize_int4__groups_of_equal_size = _but(
    "dequantize_int4",
    (
        "_scale_of_each(matrix)",
        "matrix.scale[:, torch.arange(matrix.columns) * matrix.scale.shape[1] // matrix.columns]",
    ),
)
dequantize_int4__in_half_precision = _but(
    "dequantize_int4", ("_scale_of_each(matrix)", "_scale_of_each(matrix).bfloat16()")
)
dequantize_int4__scale_rounded = _but(
    "dequantize_int4", ("_scale_of_each(matrix)", "_scale_of_each(matrix).bfloat16().float()")
)
dequantize_int4__without_minus_8 = _but(
    "dequantize_int4",
    ("unpack_int4(matrix.packed, matrix.columns)", "unpack_int4(matrix.packed, matrix.columns).clamp(min=-7)"),
)

error_bound__whole_scale = _but("error_bound", (" / 2", ""))
error_bound__signs_cancel = _but("error_bound", ("x.abs()", "x"))
error_bound__absolute_at_the_end = _but(
    "error_bound",
    ("x.abs().float() @ _scale_of_each(weight).T / 2", "(x.float() @ _scale_of_each(weight).T / 2).abs()"),
)
error_bound__first_scale_of_the_row = _but(
    "error_bound", ("_scale_of_each(weight)", "weight.scale[:, :1].expand(-1, weight.columns)")
)
error_bound__euclidean = _but(
    "error_bound",
    (
        "x.abs().float() @ _scale_of_each(weight).T / 2",
        "x.float().norm(dim=1, keepdim=True) * _scale_of_each(weight).norm(dim=1) / 2",
    ),
)
error_bound__largest_scale = _but(
    "error_bound", ("_scale_of_each(weight)", "weight.scale.amax(1, keepdim=True).expand(-1, weight.columns)")
)

QuantizedLinear__no_bias = _but("QuantizedLinear", ("None if self.bias is None else self.bias.to(x.dtype)", "None"))
QuantizedLinear__bias_quantised_too = _but(
    "QuantizedLinear",
    (
        'self.register_buffer("bias", bias)',
        'self.register_buffer("bias", None if bias is None else dequantize_int4(quantize_int4(bias[None], weight.group_size))[0])',
    ),
)
QuantizedLinear__keeps_the_dequantised_weight = _but(
    "QuantizedLinear",
    (
        'self.register_buffer("bias", bias)',
        'self.register_buffer("bias", bias); self.register_buffer("weight", dequantize_int4(weight))',
    ),
)
QuantizedLinear__keeps_unpacked_codes = _but(
    "QuantizedLinear",
    ('"packed", weight.packed', '"codes", unpack_int4(weight.packed, weight.columns)'),
    ("Int4Matrix(self.packed,", "Int4Matrix(pack_int4(self.codes),"),
)
QuantizedLinear__registers_nothing = _but(
    "QuantizedLinear",
    ('self.register_buffer("packed", weight.packed)', "self.packed = weight.packed"),
    ('self.register_buffer("scale", weight.scale)', "self.scale = weight.scale"),
)
QuantizedLinear__output_in_float32 = _but(
    "QuantizedLinear",
    (
        "linear(x, weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))",
        "linear(x.float(), weight, self.bias)",
    ),
)
QuantizedLinear__rounds_the_input_too = _but(
    "QuantizedLinear",
    (
        "linear(x,",
        "linear(dequantize_int8(quantize_symmetric(x.reshape(-1, x.shape[-1]))).reshape(x.shape).to(x.dtype),",
    ),
)
QuantizedLinear__weight_transposed = _but(
    "QuantizedLinear", ("weight.to(x.dtype)", "weight.T.reshape(weight.shape).to(x.dtype)")
)
QuantizedLinear__matrices_only = _but(
    "QuantizedLinear", ("return linear(x,", "return linear(x.reshape(-1, x.shape[-1]),")
)
QuantizedLinear__in_half_precision = _but("QuantizedLinear", ("weight.to(x.dtype)", "weight.bfloat16().to(x.dtype)"))

_CONDITION = 'name.startswith("layers.") and weight.ndim == 2'
quantize_weights__all_matrices = _but("quantize_weights", (_CONDITION, "weight.ndim == 2"))
quantize_weights__head_too = _but("quantize_weights", (_CONDITION, f'({_CONDITION} or name == "lm_head.weight")'))
quantize_weights__embeddings_too = _but(
    "quantize_weights", (_CONDITION, f'({_CONDITION} or name == "embed_tokens.weight")')
)
quantize_weights__biases_too = _but(
    "quantize_weights",
    (
        f"quantize_int4(weight, group_size) if {_CONDITION}",
        f'quantize_int4(weight.reshape(-1, weight.shape[-1]), group_size) if {_CONDITION} or name.endswith("bias")',
    ),
)
quantize_weights__attention_only = _but("quantize_weights", (_CONDITION, f'{_CONDITION} and "self_attn" in name'))
quantize_weights__first_layer_only = _but("quantize_weights", ('"layers."', '"layers.0."'))
quantize_weights__drops_the_rest = _but(
    "quantize_weights", ("for name, weight in weights.items()", f"for name, weight in weights.items() if {_CONDITION}")
)
quantize_weights__transposed = _but(
    "quantize_weights", ("quantize_int4(weight, group_size)", "quantize_int4(weight.T.contiguous(), group_size)")
)
quantize_weights__group_size_fixed = _but(
    "quantize_weights", ("quantize_int4(weight, group_size)", "quantize_int4(weight, 32)")
)
quantize_weights__names_without_weight = _but(
    "quantize_weights", ("name: quantize_int4", 'name.removesuffix(".weight"): quantize_int4')
)
quantize_weights__rest_in_half_precision = _but("quantize_weights", ("else weight\n", "else weight.bfloat16()\n"))

perplexity__not_shifted = _but("perplexity", ("token_ids[0, 1:, None]", "token_ids[0, :-1, None]"))
perplexity__mean_of_documents = _but(
    "perplexity", ("double().sum()", "double().mean()"), ("count += len(document) - 1", "count += 1")
)
perplexity__first_token_counted = _but("perplexity", ("count += len(document) - 1", "count += len(document)"))
perplexity__in_bits = _but("perplexity", ("math.exp(total / count)", "2 ** (total / count)"))
perplexity__of_bits_and_nats = _but("perplexity", ("math.exp(total / count)", "math.exp(total / count / math.log(2))"))
perplexity__not_normalised = _but("perplexity", (".log_softmax(-1)", ""))
perplexity__probabilities_averaged = _but(
    "perplexity",
    ("gather(1, token_ids[0, 1:, None]).double()", "gather(1, token_ids[0, 1:, None]).exp().double()"),
    ("total -=", "total +="),
    ("math.exp(total / count)", "count / total"),
)
perplexity__cross_entropy = _but("perplexity", ("math.exp(total / count)", "total / count"))
perplexity__nan_of_nothing = _but(
    "perplexity", ("    if count == 0:\n", "    if count == 0:\n        return math.nan\n    if False:\n")
)
perplexity__short_documents_refused = _but(
    "perplexity",
    ("        if len(document) > 1:\n", "        if len(document) < 2:\n            raise ValueError\n        else:\n"),
)
