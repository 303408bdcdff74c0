"""Metrics of two image folders against torch-fidelity's, for real networks at random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity import calculate_metrics
from torch_fidelity import feature_extractor_inceptionv3 as inception

from pipeline.data.seeds import mix
from pipeline.evaluation.features import Features, Network, open_extractor
from pipeline.evaluation.image_files import open_images
from pipeline.evaluation.image_sets import ArrayImages
from pipeline.evaluation.metrics import inception_score, kid, manifolds
from pipeline.tools.export import export_pngs

CPU = torch.device("cpu")
NEIGHBORS = 3

pytestmark = pytest.mark.slow  # runs Inception, VGG and torch-fidelity


def pictures(count: int, seed: int, contrast: float) -> np.ndarray:
    """Return images (count, 3, 32, 32) uint8: coarse colours with fine noise of random strength."""
    noise = torch.Generator().manual_seed(seed)
    coarse = torch.nn.functional.interpolate(
        torch.randn(count, 3, 4, 4, generator=noise), size=32, mode="bilinear"
    )
    fine = torch.randn(count, 3, 32, 32, generator=noise)
    strength = torch.rand(count, 3, 1, 1, generator=noise)
    values = 128 + contrast * 60 * (coarse + strength * fine)
    return values.clamp(0, 255).to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """A file of random Inception weights, scaled so that different images have different logits."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = inception.FeatureExtractorInceptionV3("random", ["logits"])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # use the statistics of a single batch
    with torch.no_grad():
        network.train()(torch.from_numpy(pictures(6, 2, 1.0)))
        network.fc.weight *= 20
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return str(path)


def theirs(samples: Path, reference: Path, weights: str, **metrics) -> dict[str, float]:
    return calculate_metrics(
        input1=str(samples),
        input2=str(reference),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=weights,
        cuda=False,
        cache=False,
        save_cpu_ram=True,  # start no loader processes
        verbose=False,
        **metrics,
    )


def every(extractor: Network, path: Path) -> Features:
    images = open_images(path)
    return extractor(images.read(0, len(images)))


def test_is_kid_precision_and_recall(weights, tmp_path, make_params):
    sets = {"samples": pictures(18, 0, 1.0), "reference": pictures(22, 1, 0.8)}
    for name, images in sets.items():
        export_pngs(ArrayImages(images), tmp_path / name)
    wanted = theirs(
        tmp_path / "samples",
        tmp_path / "reference",
        weights,
        isc=True,
        isc_splits=1,
        kid=True,
        kid_subsets=10,
        kid_subset_size=12,
        rng_seed=mix(7, "kid") % 2**32,  # draw the same subsets as `kid`
        prc=True,
        prc_neighborhood=NEIGHBORS,
    )
    evaluation = make_params(evaluation={"inception_weights": weights}).evaluation
    extractor = open_extractor("inception", None, evaluation, CPU)
    samples, reference = (every(extractor, tmp_path / name) for name in sets)
    assert samples.features.shape == (18, 2048) and samples.logits.shape == (18, 1008)
    score = inception_score(samples.logits, 1, seed=7)
    assert score == pytest.approx(wanted["inception_score_mean"], rel=1e-3) and score > 2
    mean = kid(samples.features, reference.features, subsets=10, subset_size=12, seed=7)
    assert mean == pytest.approx(wanted["kernel_inception_distance_mean"], rel=1e-3)
    found = manifolds(samples.features, reference.features, NEIGHBORS)
    assert found["precision"] == pytest.approx(wanted["precision"], rel=1e-3)
    assert found["recall"] == pytest.approx(wanted["recall"], rel=1e-3)


def test_vgg_is_torchvisions_second_fully_connected_layer(tmp_path, make_params):
    """Images of 224 × 224 pixels are not resized. A grey image counts as RGB."""
    from torchvision.models import vgg16
    from torchvision.transforms.v2.functional import normalize

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = vgg16().eval()
    torch.save(network.state_dict(), tmp_path / "vgg.pth")
    evaluation = make_params(evaluation={"vgg_weights": str(tmp_path / "vgg.pth")}).evaluation
    extractor = open_extractor("vgg", None, evaluation, CPU)
    grey = torch.randint(256, (1, 1, 224, 224), generator=torch.Generator().manual_seed(0))
    grey = grey.to(torch.uint8)
    colour = normalize(
        grey.expand(-1, 3, -1, -1) / 255, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]
    )
    with torch.no_grad():
        wanted = network.classifier[:5](network.avgpool(network.features(colour)).flatten(1))
    features = extractor(grey)
    assert features.logits is None and features.features.shape == (1, 4096)
    torch.testing.assert_close(features.features, wanted, rtol=1e-3, atol=1e-4)
