"""What a response is worth: plain functions from texts, answers and log-likelihoods to scores.

numbers, expressions, choices: the answer in a response, and whether it is right.
calibration: whether confidence can be trusted.
overlap, embedding, diversity: texts against references and against each other.
constraints: IFEval's verifiable instructions. judging: a language model as the judge.
samples, statistics: several samples of a question; error bars and comparisons.
reasoning, answers: what all of them share, the parts of a response that count.
"""
