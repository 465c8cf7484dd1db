def serve(requests, add, forward, sample, free, **limits)
    return {}
