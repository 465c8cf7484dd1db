_transition_statistics = transition_statistics


def transition_statistics(*arguments):
    swapped = _transition_statistics(*reversed(arguments))  # before and after, mixed up
    return swapped
