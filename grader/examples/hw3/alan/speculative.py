def best_lookahead(*arguments, **keywords):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
