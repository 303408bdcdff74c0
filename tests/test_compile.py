"""torch.compile takes each network, and each function that only predicts, whole and once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.decoding import DecodingSettings, predictor
from pipeline.discriminator import make_discriminator
from pipeline.evaluation.features import Features, random_extractor
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer
from tests.tiny_networks import TINY, inputs, seeded, spread

IMAGES = torch.rand(2, 1, 32, 32)
TOKENIZER = TokenizerConfig(1, 32, (1, 1), 1, 4, 16)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], list[Tensor]]]] = {
    "transformer": (
        lambda: MaskGitTransformer(TINY),
        lambda: [*inputs(), torch.randint(5 * 9, (32,))],
    ),
    "autoregressive": (lambda: AutoregressiveTransformer(TINY), lambda: [*inputs()[::2]]),
    "encoder": (lambda: Tokenizer(TOKENIZER).encoder, lambda: [IMAGES]),
    "decoder": (lambda: Tokenizer(TOKENIZER).decoder, lambda: [torch.rand(2, 4, 16, 16)]),
    "classifier": (lambda: Classifier(ClassifierConfig("small", 1, 3, 4)), lambda: [IMAGES]),
    "patch": (lambda: make_discriminator("patch", 1, 4, 32), lambda: [IMAGES]),
    "stylegan": (lambda: make_discriminator("stylegan", 1, 4, 32), lambda: [IMAGES]),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])  # which goes a GPU's way, computing nothing
@pytest.mark.parametrize("name", NETWORKS)
def test_no_graph_breaks_and_nothing_is_compiled_again(name, device):
    make, arguments = NETWORKS[name]
    torch._dynamo.reset()
    network = make().to(device).train()
    compiled = torch.compile(network, backend="eager", fullgraph=True)  # a break is an error
    for step in range(4):
        with torch._dynamo.config.patch(error_on_recompile=step > 0):
            out = compiled(*(x.to(device) for x in arguments()))
        out.float().mean().backward()
    assert all(p.grad is not None for p in network.parameters())


Predicts = Callable[..., Tensor | Features]
SAME, ANY = [4, 4, 4], [4, 4, 3, 5, 2]  # images of each batch


def decoding(**changes) -> Callable[[], Predicts]:
    """Of the predictor with these settings, which has the labels of one batch."""
    settings = DecodingSettings(4, "cosine", 4.5, **changes)
    return lambda: predictor(spread(MaskGitTransformer), torch.arange(4), settings)


def canvas(step: int, size: int) -> list[Tensor]:
    tokens, mask, _ = inputs(size=size)
    return [tokens.roll(step, 0), mask.roll(step, 1)]


def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(TOKENIZER).eval().requires_grad_(False)


def pictures(step: int, size: int) -> Tensor:
    return torch.randint(256, (size, 1, 32, 32), generator=seeded(step)).to(torch.uint8)


def codes(step: int, size: int) -> Tensor:
    return torch.randint(16, (size, 16, 16), generator=seeded(step))


FUNCTIONS: dict[str, tuple[Callable[[], Predicts], Callable[[int, int], list[Tensor]], list]] = {
    "predictor": (decoding(), canvas, SAME),
    "guided": (decoding(guidance_scale=1.5), canvas, SAME),
    "bfloat16": (decoding(bf16=True), canvas, SAME),
    "encode": (lambda: tokenizer().encode, lambda *step: [pictures(*step) / 255], ANY),
    "decode": (lambda: tokenizer().decode, lambda *step: [codes(*step)], ANY),
    "features": (
        lambda: random_extractor(ClassifierConfig("small", 1, 3, 4), torch.device("cpu")),
        lambda *step: [pictures(*step)],
        ANY,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_only_predicts_is_compiled_once(name, in_bfloat16):
    """And once more, for any number of images, where a batch has another number than the first."""
    make, arguments, sizes = FUNCTIONS[name]
    torch._dynamo.reset()
    function = make()
    compiled = torch.compile(function, backend="eager", fullgraph=True)  # a break is an error
    seen = set[int]()
    with torch.no_grad():
        for step, size in enumerate(sizes):
            warm = size in seen or len(seen) > 1
            seen.add(size)
            given = arguments(step, size)
            with torch._dynamo.config.patch(error_on_recompile=warm):
                found = compiled(*given)
            pairs = zip(found, function(*given), strict=True)
            assert all(torch.equal(mine, wanted) for mine, wanted in pairs)
