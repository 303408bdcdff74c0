"""torch.compile takes each network whole, once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.discriminator import make_discriminator
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer
from tests.tiny_networks import TINY, inputs

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
