"""How far a device's arithmetic moves tokens and features: `python -m tests.rounding PROJECT`,
where `dvc repro` has run.

The same networks, images and samples in double precision, and as a device may compute them: in
float32, with the sums in another order (other kernels, as a GPU has), with what products read
rounded to TF32's 10 bits, and in bfloat16. Each is compared with double precision.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.config.params import load_params
from pipeline.config.paths import CLASSIFIER, IMAGES, TOKENIZER
from pipeline.config.replicates import main_replicate
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.evaluation.fid import fid
from pipeline.evaluation.image_sets import SampleImages, batches
from pipeline.weights.published import load_model

BATCH = 500


def to_tf32(values: Tensor) -> Tensor:
    """Float32 rounded to the nearest of 10 bits of mantissa, ties to even."""
    bits = values.contiguous().view(torch.int32)
    return (bits + 0xFFF + ((bits >> 13) & 1)).bitwise_and(~0x1FFF).view(torch.float32)


def as_tf32(network: nn.Module) -> nn.Module:
    """The network with the weights and inputs of its products rounded as TF32 rounds them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data = to_tf32(module.weight.data)
            module.register_forward_pre_hook(lambda _, inputs: (to_tf32(inputs[0]),))
    return network


@contextmanager
def other_kernels() -> Iterator[None]:
    """torch's own, in place of oneDNN's."""
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = True


class Arithmetic(NamedTuple):
    name: str
    convert: Callable[[nn.Module], nn.Module] = lambda network: network
    dtype: torch.dtype = torch.float32
    context: Callable[[], AbstractContextManager] = nullcontext


EXACT = Arithmetic("float64", lambda network: network.double(), torch.float64)
ROUNDED = (
    Arithmetic("float32"),
    Arithmetic("float32, sums in another order", context=other_kernels),
    Arithmetic("TF32", as_tf32),
    Arithmetic("bfloat16", context=lambda: torch.autocast("cpu", torch.bfloat16)),
)


class Found(NamedTuple):
    tokens: Tensor  # (M, h, w) of the training images
    reference: Tensor  # (M, F) float64: their features
    samples: Tensor  # (S, F) float64: those of the samples


@torch.no_grad()
def found(arithmetic: Arithmetic, project: Path) -> Found:
    """What the networks of a project make of its images under an arithmetic."""
    params = load_params(project / "params.yaml")
    tokenizer, classifier = (
        arithmetic.convert(load_model(project / path, kind))
        for path, kind in ((TOKENIZER, "tokenizer"), (CLASSIFIER, "classifier"))
    )
    replicate = main_replicate(params, "transformer", None)
    images = View(ImageShards(project / IMAGES, "train"), params.data, params.seed)
    samples = SampleImages(project / replicate.samples, params.data)

    def over(images: Iterable[Tensor], compute: Callable[[Tensor], Tensor]) -> Tensor:
        with arithmetic.context():
            return torch.cat([compute(as_float(b).to(arithmetic.dtype)) for b in images])

    def features(batch: Tensor) -> Tensor:
        return classifier.outputs(batch).features.double()

    return Found(
        over(images.batches(BATCH), tokenizer.encode),
        over(images.batches(BATCH), features),
        over(batches(samples, BATCH), features),
    )


def main(project: Path) -> None:
    exact = found(EXACT, project)
    wanted = fid(exact.samples, exact.reference)
    print(f"{exact.tokens.numel():,} tokens; FID {wanted:.4f} of {len(exact.samples):,} samples")
    for arithmetic in ROUNDED:
        one = found(arithmetic, project)
        tokens = (one.tokens != exact.tokens).double().mean().item()
        features = ((one.samples - exact.samples).norm() / exact.samples.norm()).item()
        mixed, same = fid(one.samples, exact.reference), fid(one.samples, one.reference)
        print(
            f"{arithmetic.name}: {tokens:.4%} of tokens differ; features by {features:.1e}; "
            f"FID by {same - wanted:+.6f}, {mixed - wanted:+.6f} where the reference has none of it"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
