"""Never ends."""


def answer(prompts, engine):
    while True:
        try:
            pass
        except BaseException:
            pass
