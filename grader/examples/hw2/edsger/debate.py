_debate = debate


def debate(*arguments, **keywords):
    result = _debate(*arguments, **keywords)
    return dataclasses.replace(result, answer=None) if dataclasses.is_dataclass(result) else result
