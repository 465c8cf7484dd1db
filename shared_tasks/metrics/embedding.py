"""Similarity of texts by the embeddings of their tokens, after BERTScore.

The only metric here that needs a model; nothing else imports this module. Any model that transformers loads will do,
by its name on the hub or from a local folder.
"""

from collections.abc import Sequence

import msgspec
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModel, AutoTokenizer


class Similarity(msgspec.Struct, frozen=True):
    """How well the tokens of two texts match, as mean cosine similarities from -1 to 1."""

    precision: float
    """Of the hypothesis's tokens with their best matches in the reference."""
    recall: float
    """Of the reference's tokens with their best matches in the hypothesis."""

    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall; 0 where neither is positive."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total > 0 else 0.0


class EmbeddingSimilarity:
    """BERTScore with greedy matching, without idf weights and without rescaling to a baseline.

    Tokens are embedded by the hidden states of one layer (the last one unless told otherwise, 0 being the input
    embeddings). Special tokens take no part. Texts longer than the model's window are cut.

    Raises OSError when the model cannot be loaded, ValueError when it has no such layer.

    Paper: Zhang et al., 2020, https://arxiv.org/abs/1904.09675.
    """

    def __init__(self, model: str, layer: int = -1, device: str = "cpu"):
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModel.from_pretrained(model, dtype=torch.float32).to(device).eval()
        layers = self.model.config.num_hidden_layers
        if not -layers - 1 <= layer <= layers:
            raise ValueError(f"expected a layer from 0 to {layers}, or counted from the end, got {layer}")
        self.layer = layer

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[Similarity]:
        """Return, for each hypothesis, its similarity with the reference that gives the highest F1.

        A text without tokens matches nothing: 0. Raises ValueError unless there is a list of at least one reference for
        each hypothesis.
        """
        if isinstance(references, str) or len(hypotheses) != len(references):
            raise ValueError(f"expected a list of references for each of {len(hypotheses)} texts")
        if any(isinstance(texts, str) or not len(texts) for texts in references):
            raise ValueError('expected a list of references for each text, like [["a cat", "one cat"], ["a dog"]]')
        texts = dict.fromkeys([*hypotheses, *(text for several in references for text in several)])
        embedded = {text: self.embed(text) for text in texts}
        return [
            max((match(embedded[hypothesis], embedded[text]) for text in several), key=lambda score: score.f1)
            for hypothesis, several in zip(hypotheses, references, strict=True)
        ]

    @torch.inference_mode()
    def embed(self, text: str) -> Float[Tensor, "tokens hidden"]:
        """Return a unit vector for each token of the text, special tokens left out."""
        window = self.model.config.max_position_embeddings
        encoded = self.tokenizer(text, truncation=True, max_length=window, return_special_tokens_mask=True)
        if not encoded["input_ids"]:
            return torch.empty(0, self.model.config.hidden_size)
        ids = torch.tensor([encoded["input_ids"]], device=self.model.device)
        states = self.model(input_ids=ids, output_hidden_states=True).hidden_states[self.layer][0].cpu()
        kept = states[torch.tensor(encoded["special_tokens_mask"]) == 0]
        return torch.nn.functional.normalize(kept, dim=-1)


def match(hypothesis: Float[Tensor, "n hidden"], reference: Float[Tensor, "m hidden"]) -> Similarity:
    """Return the greedy matching of two sets of unit vectors: each is matched with the most similar one of the other.

    Equations 1 of Zhang et al., 2020. An empty set matches nothing: 0.
    """
    if not len(hypothesis) or not len(reference):
        return Similarity(0.0, 0.0)
    cosines = hypothesis @ reference.T
    return Similarity(precision=float(cosines.amax(1).mean()), recall=float(cosines.amax(0).mean()))
