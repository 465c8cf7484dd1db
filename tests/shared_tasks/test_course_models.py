"""The course models: how text becomes training rows, how a run is resumed, and what the shipped models can do."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from shared_tasks.models.course import training
from shared_tasks.models.course.text import Document, documents
from shared_tasks.models.course.training import IGNORED, RECIPES, Phase, Recipe
from shared_tasks.models.folders import WEIGHTS, course_models
from shared_tasks.models.registry import load_model
from shared_tasks.tasks.embedded.splits import DATA
from shared_tasks.tasks.prompts import math_prompt

TINY = Recipe(
    hidden_size=16, layers=1, heads=2, kv_heads=1, head_dim=8, intermediate_size=16, batch=2,
    phases=(Phase("foundation", 20, warmup_steps=5), Phase("course", 20, peak=0.5, warmup_steps=5)),
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return training.train_tokenizer(1_024)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_models_are_of_their_recipe(name: str) -> None:
    """The shipped record, shape and dtype are those of the recipe that trains the model."""
    record = json.loads((WEIGHTS / name / "training.json").read_text())
    assert record["recipe"] == json.loads(json.dumps(asdict(RECIPES[name])))
    config = AutoConfig.from_pretrained(WEIGHTS / name)
    assert config.architectures == ["Qwen3ForCausalLM"]
    assert (config.hidden_size, config.num_hidden_layers) == (RECIPES[name].hidden_size, RECIPES[name].layers)
    assert config.max_position_embeddings == record["window"] == 1024
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS / name)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.num_parameters() == record["parameters"]


def test_shipped_models_are_small_and_share_a_tokenizer(tokenizer) -> None:
    """All weights together take at most 20 MB; the tokenizer is one, and is the one that the script trains."""
    assert course_models() == sorted(RECIPES)
    assert sum(file.stat().st_size for file in WEIGHTS.glob("*/*")) <= 20_000_000
    files = {(WEIGHTS / name / "tokenizer.json").read_text() for name in RECIPES}
    assert len(files) == 1
    assert json.loads(files.pop())["model"] == json.loads(tokenizer.backend_tokenizer.to_str())["model"]


def test_markers_are_single_tokens_and_the_end_is_token_zero(tokenizer) -> None:
    """The end token is 0 and also starts texts and pads; user and assistant have a token each."""
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|user|>", "<|assistant|>"]) == [0, 1, 2]
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == 0


def test_digits_operators_and_option_letters_are_single_tokens(tokenizer) -> None:
    """No token joins two digits, or a digit and an operator, or an option letter and its parentheses."""
    for text in ("12+345=357", "(7*48)-9/3", "(A)", "(E)"):
        assert [tokenizer.decode([token]) for token in tokenizer(text).input_ids] == list(text)


def test_any_text_survives_the_tokenizer(tokenizer) -> None:
    """Decoding gives back what was encoded, whatever the alphabet."""
    for text in ("Grüße, 東京!\n\t x", "The answer is (C).", "  two  spaces"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_training_documents_are_what_the_chat_template_writes(tokenizer) -> None:
    """A question and its answer have the tokens of the rendered chat, up to the end token that begins the next."""
    document = next(d for d in documents("test", "course") if d.user is not None)
    chat = [{"role": "user", "content": document.user}, {"role": "assistant", "content": document.text}]
    ((tokens, labels),) = training.encode(tokenizer, [document])
    assert [*tokens, 0] == tokenizer.apply_chat_template(chat, return_dict=False)
    prompt = tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, return_dict=False)
    assert labels == [IGNORED] * len(prompt) + tokens[len(prompt) :]


def test_the_chat_template_takes_several_turns_and_a_system_message(tokenizer) -> None:
    """Each answer is closed by the end token; a system message is the beginning of the first question."""
    roles = ["system", "user", "assistant", "user"]
    chat = [{"role": role, "content": text} for role, text in zip(roles, "sqar", strict=True)]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|endoftext|><|user|>s\nq<|assistant|>a<|endoftext|><|user|>r<|assistant|>"


def test_a_plain_text_is_learnt_whole(tokenizer) -> None:
    """Without a question every token but the first is learnt."""
    ((tokens, labels),) = training.encode(tokenizer, [Document(None, "1+1=2")])
    assert labels == [IGNORED, *tokens[1:]]


def test_rows_hold_whole_documents(tokenizer) -> None:
    """Every row starts and ends with the end token, each part between two is a document, and little room is left."""
    recipe = RECIPES["course-base"]
    tokens, labels = training.packed_rows(tokenizer, recipe, 0)
    assert tokens.shape == labels.shape == (training.CHUNK_STEPS * recipe.batch, recipe.context)
    assert (tokens[:, 0] == 0).all()
    assert (tokens != 0).float().mean() > 0.95
    source = documents(f"{recipe.seed}/0", "foundation")
    drawn = {tuple(pair[0]) for pair in training.encode(tokenizer, [next(source) for _ in range(3_000)])}
    for row, learnt in zip(tokens[:50].tolist(), labels[:50].tolist(), strict=True):
        ends = [i for i, (token, label) in enumerate(zip(row, learnt, strict=True)) if token == 0 and label == 0]
        starts = [0, *ends[:-1]]
        assert all(tuple(row[i:j]) in drawn for i, j in zip(starts, ends, strict=True))
        assert set(learnt[ends[-1] + 1 :]) <= {IGNORED}


def test_rates_rise_stay_and_fall_in_every_phase() -> None:
    """The factor is the phase's peak between its rise and its fall, and next to nothing at its end."""
    recipe = RECIPES["course-base"]
    first, second = recipe.phases
    assert training.rate(recipe, 0) == pytest.approx(1 / first.warmup_steps)
    assert training.rate(recipe, first.steps // 2) == 1
    assert training.rate(recipe, first.steps * 3 // 4) == pytest.approx(0.5)
    assert training.rate(recipe, first.steps - 1) == pytest.approx(2 / first.steps)
    assert training.rate(recipe, first.steps + second.warmup_steps) == pytest.approx(second.peak)
    with pytest.raises(ValueError, match="below 3000"):
        training.rate(recipe, recipe.steps)


def test_an_interrupted_run_ends_like_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after a checkpoint, in the second phase, and started again, a run gives the same weights."""
    monkeypatch.setattr(training, "CHECKPOINT_STEPS", 10)
    monkeypatch.setattr(training, "HELD_OUT_DOCUMENTS", 3)
    whole = training.train(TINY, tmp_path / "whole")
    all_batches = training.batches

    def killed_at_35(tokenizer, recipe, first):
        for step, batch in enumerate(all_batches(tokenizer, recipe, first), first):
            if step == 35:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(training, "batches", killed_at_35)
    with pytest.raises(KeyboardInterrupt):
        training.train(TINY, tmp_path / "resumed")
    assert torch.load(tmp_path / "resumed" / "checkpoint.pt", weights_only=True)["step"] == 30
    monkeypatch.setattr(training, "batches", all_batches)
    assert training.train(TINY, tmp_path / "resumed") == whole
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "resumed")]
    assert weights[0] == weights[1]
    assert not (tmp_path / "resumed" / "checkpoint.pt").exists()


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    """A run does not go on from what another recipe has trained."""
    torch.save({"recipe": asdict(RECIPES["course-small"])}, tmp_path / "checkpoint.pt")
    with pytest.raises(SystemExit, match="another recipe"):
        training.train(TINY, tmp_path)


@pytest.mark.slow
def test_reasoning_beats_answering_at_once() -> None:
    """On held-out problems course-base is right far more often when it reasons first."""
    model = load_model("course-base")
    items = [json.loads(line) for line in (DATA / "math" / "dev.jsonl").read_text().splitlines()[:40]]
    right = {"cot": 0, "direct": 0}
    for item in items:
        gold = item["answer"].rpartition("####")[2].strip()
        for method in right:
            prompt = model.encode(f"<|user|>{math_prompt(item['question'], method)}<|assistant|>")
            answer: list[int] = []
            while len(answer) < 200 and model.eos_token_id not in answer:
                answer.append(int(model.next_token_logprobs([prompt + answer])[0].argmax()))
            found = re.search(r"#### (\d+)", model.decode(answer))
            right[method] += found is not None and found[1] == gold
    assert right["cot"] >= 12
    assert right["cot"] >= right["direct"] + 8


@pytest.mark.slow
def test_the_larger_model_finds_held_out_text_likelier() -> None:
    """course-base has the lower perplexity on documents that neither model has seen."""
    perplexities = {}
    for name in RECIPES:
        model = AutoModelForCausalLM.from_pretrained(WEIGHTS / name, dtype=torch.float32)
        perplexities[name] = training.held_out_perplexity(model, AutoTokenizer.from_pretrained(WEIGHTS / name))
        record = json.loads((WEIGHTS / name / "training.json").read_text())
        assert perplexities[name] == pytest.approx(record["held_out_perplexity"], abs=0.01)
    assert perplexities["course-base"] < perplexities["course-small"]
