"""Networks of the shapes that other open reproductions of MaskGIT publish, trained and decoded as
such code commonly does. They are rebuilt from libraries' own layers, and are not the others' code:
what is said of them says nothing of that code's own details."""

import importlib.util
import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.device import autocast

CPU = torch.device("cpu")
LAYERS, HIDDEN, MLP, DROPOUT = 24, 768, 3072, 0.1
TOKENS, CODES, CLASSES = 256, 1024, 1000
MASK = CODES  # its row in the vocabulary; those of classes, and of none, follow it
VOCABULARY = CODES + 1 + CLASSES + 1
TITOK, HALTON = "TiTok's shape", "Halton-MaskGIT's shape"


class BertOfTransformers(nn.Module):
    """The shape of TiTok's `ImageBert`: BERT of the library `transformers`, class token first, and
    a linear layer that gives logits over the codes."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=16,
            intermediate_size=MLP,
            hidden_dropout_prob=DROPOUT,
            attention_probs_dropout_prob=DROPOUT,
            max_position_embeddings=TOKENS + 1,
            pad_token_id=None,
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(HIDDEN, CODES)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, N, K) of ids (B, N)."""
        sequence = torch.cat([labels[:, None] + MASK + 1, ids], dim=1)
        return self.head(self.bert(input_ids=sequence)[0][:, 1:])


class PreNormEncoder(nn.Module):
    """The shape of Halton-MaskGIT's first version: torch's encoder with the norms before attention
    and MLP, class token last, and logits by the embeddings of all that there is, at every place."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.positions = nn.Parameter(0.02 * torch.randn(TOKENS + 1, HIDDEN))
        nn.init.normal_(self.embedding.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            HIDDEN, 8, MLP, DROPOUT, activation="gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(HIDDEN)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm, enable_nested_tensor=False)
        self.dropout = nn.Dropout(DROPOUT)
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, N, V) of ids (B, N)."""
        sequence = torch.cat([ids, labels[:, None] + MASK + 1], dim=1)
        hidden = self.encoder(self.dropout(self.embedding(sequence) + self.positions))
        return F.linear(hidden, self.embedding.weight, self.bias)[:, :TOKENS]


@cache  # so that it says once what is left out
def networks() -> dict[str, Callable[[], nn.Module]]:
    """By name, those that can be built here."""
    if importlib.util.find_spec("transformers") is None:
        print(f"without {TITOK}, which is built of another library: pip install transformers")
        return {HALTON: PreNormEncoder}
    return {TITOK: BertOfTransformers, HALTON: PreNormEncoder}


def training_step(model: nn.Module, batch: int) -> Callable[[], None]:
    """AdamW, label smoothing, clipped gradients and averaged weights."""
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.96), weight_decay=0.045
    )
    average = [parameter.detach().clone() for parameter in model.parameters()]
    noise = torch.Generator().manual_seed(0)

    def step() -> None:
        codes = torch.randint(CODES, (batch, TOKENS), generator=noise)
        labels = torch.randint(CLASSES, (batch,), generator=noise)
        ratio = torch.cos(torch.rand(batch, 1, generator=noise) * math.pi / 2)
        mask = torch.rand(batch, TOKENS, generator=noise) < ratio
        with autocast(CPU, True):
            logits = model(codes.masked_fill(mask, MASK), labels)
            loss = F.cross_entropy(logits[mask], codes[mask], label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average, model.parameters(), strict=True):
                mean.lerp_(parameter, 1e-3)

    return step


def decoding(
    model: nn.Module, batch: int, iterations: int, temperature: float
) -> Callable[[], Tensor]:
    """Tokens (B, N) by the cosine schedule, with Gumbel noise that is annealed to none."""
    model.eval()
    labels = torch.arange(batch)

    def gumbel(like: Tensor) -> Tensor:
        exponential = -torch.rand_like(like).clamp(1e-20).log()
        return -exponential.clamp(1e-20).log()

    @torch.no_grad()
    def decode() -> Tensor:
        ids = torch.full((batch, TOKENS), MASK)
        for step in range(1, iterations + 1):
            masked, ratio = ids == MASK, step / iterations
            with autocast(CPU, True):
                logits = model(ids, labels).float()[..., :CODES]
            drawn = torch.where(masked, (logits + gumbel(logits)).argmax(-1), ids)
            chosen = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
            confidence = chosen + temperature * (1 - ratio) * gumbel(chosen)
            confidence = torch.where(masked, confidence, torch.inf)
            ids = drawn
            if step < iterations:
                count = int(TOKENS * math.cos(ratio * math.pi / 2))
                count = max(1, min(int(masked.sum(-1).min()) - 1, count))
                cut_off = confidence.sort(-1).values[:, count - 1 : count]
                ids = torch.where(confidence <= cut_off, MASK, drawn)
        return ids

    return decode
