def latency(request):
    times = request.token_times
    return Latency(times[0] - request.sent, (times[-1] - request.sent) / len(times), times[-1] - request.sent)
