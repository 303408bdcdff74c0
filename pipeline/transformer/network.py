"""The bidirectional transformer (paper, section 4.1; layout as in the authors' release).

Blocks with post-LayerNorm, as in BERT, read a class token and the image tokens. One embedding table
holds, in this order, the K codes of the tokenizer, the classes and [MASK]; it is also the output
projection. Shape suffixes: B batch, S sequence (class token + N tokens), D hidden, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.transformer.kernels import Dropout, LinearGelu, attend

LAYER_NORM_EPS = 1e-12  # BERT's


@dataclass(frozen=True)
class TransformerConfig:
    """A transformer's architecture. In the paper: 24 layers, 8 heads, hidden 768, MLP 3072."""

    num_tokens: int  # N, the length of the flattened token grid
    codebook_size: int  # K
    num_classes: int
    layers: int
    hidden: int
    heads: int
    mlp: int
    dropout: float

    @property
    def mask_id(self) -> int:
        """The vocabulary id of [MASK], which is the last id."""
        return self.codebook_size + self.num_classes

    @property
    def vocabulary(self) -> int:
        return self.codebook_size + self.num_classes + 1


class KeyValueCache:
    """Stores the keys and values of a layer between the steps of autoregressive decoding, in memory
    that is allocated once for the whole sequence."""

    def __init__(self, length: int):
        self.length, self.filled = length, 0
        self.keys = self.values = torch.empty(0)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values (B, heads, s, d) of the next s positions. Returns a tuple of
        the keys and the values of all positions so far."""
        if self.filled == 0:
            batch, heads, _, dim = k.shape
            self.keys, self.values = (x.new_empty(batch, heads, self.length, dim) for x in (k, v))
        start, self.filled = self.filled, self.filled + k.shape[2]
        self.keys[:, :, start : self.filled] = k
        self.values[:, :, start : self.filled] = v
        return self.keys[:, :, : self.filled], self.values[:, :, : self.filled]


class SelfAttention(nn.Module):
    def __init__(self, config: TransformerConfig, causal: bool):
        super().__init__()
        self.heads, self.causal = config.heads, causal
        self.dropout = Dropout(config.dropout)
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)

    def forward(self, x_BSD: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        qkv = self.qkv(x_BSD).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, S, D / heads)
        if cache is not None:  # x is the newest position, which attends to all positions
            k, v = cache.append(k, v)
        y = attend(q, k, v, self.dropout, causal=self.causal and cache is None)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block: attention, then an MLP, each followed by dropout, the residual sum and
    LayerNorm (post-LN)."""

    def __init__(self, config: TransformerConfig, causal: bool):
        super().__init__()
        self.attention = SelfAttention(config, causal)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.mlp_in = LinearGelu(config.hidden, config.mlp)
        self.mlp_out = nn.Linear(config.mlp, config.hidden)
        self.mlp_norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BSD: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x_BSD = self.attention_norm(x_BSD + self.dropout(self.attention(x_BSD, cache)))
        y = self.mlp_out(self.mlp_in(x_BSD))
        return self.mlp_norm(x_BSD + self.dropout(y))


class TokenTransformer(nn.Module):
    """The embeddings, blocks and tied head that MaskGIT shares with the autoregressive baseline."""

    causal: bool  # whether a position attends only to itself and earlier positions

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, config.hidden)
        self.position_embedding = nn.Parameter(torch.empty(config.num_tokens + 1, config.hidden))
        self.embedding_norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, self.causal) for _ in range(config.layers))
        self.head = LinearGelu(config.hidden, config.hidden)
        self.head_norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.vocabulary_bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.apply(_init_weights)
        nn.init.trunc_normal_(self.position_embedding, std=0.02, a=-0.04, b=0.04)

    @property
    def device(self) -> torch.device:
        return self.vocabulary_bias.device

    def encode(
        self, ids_BS: Tensor, caches: Sequence[KeyValueCache] = (), start: int = 0
    ) -> Tensor:
        """Compute the hidden states (B, S, D) of vocabulary ids (B, S). The first id has position
        `start`; the class token has position 0. If `caches` are given (one per block), they hold
        the keys and values before `start`, and the new ids' keys and values are appended."""
        positions_SD = self.position_embedding[start : start + ids_BS.shape[1]]
        x_BSD = self.dropout(self.embedding_norm(self.token_embedding(ids_BS) + positions_SD))
        for i, block in enumerate(self.blocks):
            x_BSD = block(x_BSD, caches[i] if caches else None)
        return x_BSD

    def logits(self, x: Tensor) -> Tensor:
        """Logits over the whole vocabulary from hidden states (..., D)."""
        return self._project(x, self.config.vocabulary)

    def code_logits(self, x: Tensor) -> Tensor:
        """Logits over the K codes only, from hidden states (..., D)."""
        return self._project(x, self.config.codebook_size)

    def _project(self, x: Tensor, rows: int) -> Tensor:
        y = self.head_norm(self.head(x))
        return F.linear(y, self.token_embedding.weight[:rows], self.vocabulary_bias[:rows])

    def class_ids(self, labels_B: Tensor) -> Tensor:
        """Vocabulary ids (B, 1) of labels. The label `num_classes` means "no class" and gets the id
        of [MASK], the unconditional input of classifier-free guidance."""
        return labels_B[:, None] + self.config.codebook_size


class MaskGitTransformer(TokenTransformer):
    """Predicts all masked tokens from the other tokens and the class."""

    causal = False

    def sequence(self, tokens_BN: Tensor, mask_BN: Tensor, labels_B: Tensor) -> Tensor:
        """Vocabulary ids (B, 1 + N): the class token, then N tokens, masked ones as [MASK]."""
        ids_BN = tokens_BN.masked_fill(mask_BN, self.config.mask_id)
        return torch.cat([self.class_ids(labels_B), ids_BN], dim=1)

    def predict(self, tokens_BN: Tensor, mask_BN: Tensor, labels_B: Tensor) -> Tensor:
        """Logits (B, N, K) over the codes at every position, for decoding."""
        hidden = self.encode(self.sequence(tokens_BN, mask_BN, labels_B))
        return self.code_logits(hidden[:, 1:])

    def forward(
        self, tokens_BN: Tensor, mask_BN: Tensor, labels_B: Tensor, where: Tensor
    ) -> Tensor:
        """Logits (len(where), V) over the whole vocabulary, only at the positions that count in the
        loss. `where` (int64) has the indices of these positions in the flattened (B, N) tokens."""
        hidden_BSD = self.encode(self.sequence(tokens_BN, mask_BN, labels_B))
        return self.logits(hidden_BSD[:, 1:].flatten(0, 1).index_select(0, where))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
