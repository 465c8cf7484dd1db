"""What references of homework 2 give with a real engine, for the hidden tests that compare with it."""

import json
from pathlib import Path
from typing import Any

from grader.goldens.prepare import Reference, Subject
from grader.goldens.recording import RecordingEngine
from grader.reference.hw2 import reranking, self_consistency
from shared_tasks.metrics.numbers import extract_number
from shared_tasks.models.engine import Completion, SamplingParams
from shared_tasks.tasks.prompts import math_prompt


def votes(subject: Subject, given: dict[str, Any]) -> dict[str, Any]:
    """Let the answers of several samples vote on a problem."""
    engine = RecordingEngine(subject.engine)
    prompt, params = subject.chat(given["message"]), SamplingParams(**given["params"])
    vote = self_consistency.self_consistency(engine, prompt, final_answer, given["n"], params)
    return {
        "prompt": prompt,
        "n": given["n"],
        "params": params,
        "vote": [vote.answer, vote.counts, vote.samples],
        "correct": vote.answer == given["answer"],
        "recording": engine.recording,
    }


def best_of_n(subject: Subject, given: dict[str, Any]) -> dict[str, Any]:
    """Keep the sample with the highest mean log-probability."""
    engine = RecordingEngine(subject.engine)
    prompt, params = subject.chat(given["message"]), SamplingParams(**given["params"])
    best = reranking.generate_and_rerank(engine, mean_logprob, given["n"], prompt, params)
    return {
        "prompt": prompt,
        "n": given["n"],
        "params": params,
        "text": best.text,
        "score": mean_logprob(prompt, [best])[0],
        "correct": final_answer(best.text) == given["answer"],
        "recording": engine.recording,
    }


def likelihoods(subject: Subject, given: dict[str, Any]) -> dict[str, Any]:
    """Score samples by their log-likelihood."""
    engine = RecordingEngine(subject.engine)
    prompt, params = subject.chat(given["message"]), SamplingParams(**given["params"], n=given["n"])
    (generation,) = subject.engine.generate([prompt], params)
    candidates = [candidate for candidate in generation.completions if candidate.text.strip()]
    scores = reranking.likelihood_scores(engine, prompt, candidates)
    return {"prompt": prompt, "candidates": candidates, "scores": scores, "recording": engine.recording}


def final_answer(text: str) -> str | None:
    """Return the number that a text ends in, if it came to an answer."""
    number = extract_number(text) if "####" in text else None
    return None if number is None else str(number)


def mean_logprob(x: str, candidates: list[Completion]) -> list[float]:
    """Be a reranker."""
    return reranking.logprob_scores(candidates, length_penalty=1.0)


def _problems(count: int) -> list[dict[str, Any]]:
    """Return problems of the hidden split, whose questions no student has."""
    lines = (Path(__file__).parents[1] / "shared_tasks" / "math.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:count]]
    return [{"message": math_prompt(r["question"], "cot"), "answer": final_answer(r["answer"])} for r in rows]


SAMPLES = {"temperature": 0.8, "top_p": 0.95, "max_tokens": 96, "seed": 8}
REFERENCES = [
    Reference(votes, [{**problem, "n": 8, "params": SAMPLES} for problem in _problems(12)]),
    Reference(best_of_n, [{**problem, "n": 4, "params": SAMPLES} for problem in _problems(6)]),
    Reference(likelihoods, [{**problem, "n": 3, "params": SAMPLES} for problem in _problems(4)]),
]
