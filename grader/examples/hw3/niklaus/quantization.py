def error_bound(x, weight):
    rows = []
    while True:
        rows.append(torch.ones(1 << 24))
