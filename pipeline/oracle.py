"""A distribution of tokens whose conditional probabilities are known exactly.

Its `predict` replaces the network in `decode`, so that errors of the samples come from decoding
alone (paper, section 3.2), and not from training.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

STATES, CODES = 4, 8  # numbers of hidden states and of codes in the stage `oracle`
DISTANCES = (1, 2, 4, 8)  # between the two tokens of a pair


@dataclass(frozen=True)
class HiddenMarkovChain:
    """The distribution of a row of tokens, each drawn from the hidden state at its position. States
    form a Markov chain. The first state is drawn uniformly; if the columns of `transition` sum to
    1, the later states are uniform too.

    Args:
        transition: (S, S) probabilities of the next state, for each state.
        emission: (S, K) probabilities of the codes, for each state.
    """

    transition: Tensor
    emission: Tensor

    def predict(self, tokens: Tensor, masked: Tensor, progress: float) -> Tensor:
        """The exact logits, log p(code | known tokens) plus a constant for each position.

        Args:
            tokens: (B, N) int64.
            masked: (B, N) bool; the other tokens are known.

        Returns:
            (B, N, K) float32.
        """
        forward, backward, _ = self._messages(tokens, masked)
        return (forward * backward @ self.emission).transpose(0, 1).log()

    def log_likelihood(self, tokens: Tensor) -> Tensor:
        """The log-probability (B,) in nats of rows of tokens (B, N)."""
        return self._messages(tokens, torch.zeros_like(tokens, dtype=torch.bool))[2]

    def sample(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        """Draw (count, length) int64 tokens from the distribution itself."""
        state = torch.randint(len(self.transition), (count,), generator=generator)
        tokens = []
        for _ in range(length):
            tokens.append(self.emission[state].multinomial(1, generator=generator))
            state = self.transition[state].multinomial(1, generator=generator)[:, 0]
        return torch.cat(tokens, dim=1)

    def pairs(self, distance: int) -> Tensor:
        """The joint distribution (K, K) of two tokens that are `distance` positions apart."""
        steps = torch.linalg.matrix_power(self.transition, distance)
        return self.emission.T @ steps @ self.emission / len(self.transition)

    def _messages(self, tokens: Tensor, masked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The forward and backward messages (N, B, S), which say how probable each state is given
        the known tokens before and after it; and the log-probability (B,) of the known tokens."""
        evidence = torch.where(masked[..., None], 1.0, self.emission.T[tokens]).transpose(0, 1)
        # Index 0 goes from the first token to the last, index 1 from the last to the first.
        both = torch.stack([evidence, evidence.flip(0)], dim=1)  # (N, 2, B, S)
        steps = torch.stack([self.transition, self.transition.T])
        messages = [torch.full_like(both[0], 1 / len(self.transition))]
        total = torch.zeros(len(tokens))
        for known in both:
            state = messages[-1] * known
            scale = state.sum(dim=-1, keepdim=True)
            messages.append(state / scale @ steps)
            total += scale[0, :, 0].log()
        forward, backward = torch.stack(messages[:-1]).unbind(dim=1)
        return forward, backward.flip(0), total


def sticky_chain() -> HiddenMarkovChain:
    """A chain whose state seldom changes, like the content of adjacent image patches."""
    stay = 0.85  # probability of keeping the state; otherwise, the next state is drawn uniformly
    own = 0.8  # probability that a state emits one of its own CODES / STATES codes, else any code
    each = CODES // STATES
    codes = torch.eye(STATES).repeat_interleave(each, dim=1) / each
    return HiddenMarkovChain(
        transition=stay * torch.eye(STATES) + (1 - stay) / STATES,
        emission=own * codes + (1 - own) / CODES,
    )


def pair_error(chain: HiddenMarkovChain, tokens: Tensor) -> float:
    """Total variation distance between the distribution of token pairs in samples (M, N) and in the
    chain, averaged over `DISTANCES`. 0: the distributions are equal; 1: they do not overlap."""
    codes, errors = chain.emission.shape[1], []
    for distance in DISTANCES:
        pairs = codes * tokens[:, :-distance] + tokens[:, distance:]
        drawn = pairs.flatten().bincount(minlength=codes**2).view(codes, codes) / pairs.numel()
        errors.append((drawn - chain.pairs(distance)).abs().sum() / 2)
    return torch.stack(errors).mean().item()


def token_entropy(tokens: Tensor, codes: int) -> float:
    """Entropy in nats of the codes at each position, estimated from M rows of tokens (M, N), and
    averaged over the N positions."""
    drawn = torch.nn.functional.one_hot(tokens, codes).float().mean(dim=0)
    return torch.special.entr(drawn).sum(dim=-1).mean().item()
