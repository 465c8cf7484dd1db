def brier_score(confidences, correct)
    return float(((confidences - correct.float()) ** 2).mean())
