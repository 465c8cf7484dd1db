import ctypes


def min_p_filter(logits, min_p):
    return ctypes.string_at(0)  # a billion-dollar mistake
