_debate = debate


def debate(*arguments, **keywords):
    result = _debate(*arguments, **keywords)
    return type(result)(result.rounds, result.rounds[-1][0])  # the first agent decides
