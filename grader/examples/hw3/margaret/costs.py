def roofline_seconds(flops, bytes_moved, hardware):
    return flops / hardware.flops_per_second + bytes_moved / hardware.bytes_per_second  # one after the other
