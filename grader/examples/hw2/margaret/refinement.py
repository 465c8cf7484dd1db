_transition_statistics = transition_statistics


def transition_statistics(correct):
    found = _transition_statistics(correct)
    return Transitions(found.becomes_correct, found.stays_correct)  # mixed up
