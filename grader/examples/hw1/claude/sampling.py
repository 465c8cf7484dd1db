printed = False


def apply_temperature(logits, temperature):
    global printed
    line = "a mathematical theory of communication " * 1000 + "\n"
    while not printed:
        for _ in range(27_000):
            print(line, end="")  # about 1 GB
        printed = True
    return logits / temperature


def epsilon_filter(logits, epsilon_cutoff):
    print("\x1b[2J<script>alert('hello, staff')</script>")
    raise RuntimeError("<img src=x onerror=alert(1)> \u202e not for the report")
