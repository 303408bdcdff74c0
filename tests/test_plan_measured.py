"""What `plan` counts beside training and sampling: looks at validation images, features, and the
processors' work."""

import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_fidelity import feature_extractor_inceptionv3 as inception

from pipeline.classifier import Classifier
from pipeline.config.presets import preset_params
from pipeline.data.seeds import generator
from pipeline.tools.plan import costs
from pipeline.tools.plan.data import data_size
from pipeline.tools.plan.measured import extractor_flops, measured_sets
from pipeline.tools.plan.networks import plan_networks
from pipeline.tools.plan.stages import plan_stages
from pipeline.tools.plan.work import Device, Part, Stage
from tests.planned import DIGITS, default_task


def planned(params, data=DIGITS) -> dict[str, Stage]:
    return {s.name: s for s in plan_stages(params, data, plan_networks(params, data))}


def during_training(stage: Stage) -> Part:
    return next(part for part in stage.parts if part.what == "validation")


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("transformer", 0.05), ("autoregressive", 0.01), ("classifier", 1e-9), ("tokenizer", 1e-9)],
)
def test_a_look_at_validation_images_is_a_real_one(name, tolerance, make_params, digit_tokens):
    """Each of the checkpoints of a training; of masked tokens alone MaskGIT's head is computed."""
    params = make_params(evaluation={"seeds": [0]}, training={"other_label_smoothings": []})
    section = {"classifier": params.classifier, "tokenizer": params.tokenizer}.get(
        name, params.training
    )
    task = default_task(name, params, digit_tokens)  # whose held-out images are 4
    task.params = params.tokenizer.model_copy(update={"adversarial_weight": 0.0})
    looks = -(-section.steps // section.checkpoint_every)
    with sdpa_kernel(SDPBackend.MATH):  # whose products are counted as such
        real = costs.count_flops(lambda: task.evaluate(1))
    stage = planned(params, dataclasses.replace(DIGITS, val=4))[f"train_{name}"]
    assert during_training(stage).flops == pytest.approx(looks * real, rel=tolerance)


def test_features_are_as_costly_as_the_extractors_are(make_params, monkeypatch):
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
    network = inception.FeatureExtractorInceptionV3("random", ["2048", "logits_unbiased"]).eval()
    noise = torch.randint(256, (1, 3, 32, 32), generator=generator("inception")).to(torch.uint8)
    with torch.no_grad():
        real = costs.count_flops(lambda: network(noise))
    params = make_params(
        evaluation={"extractor": "inception", "second_extractor": "vgg", "samples": 3000},
        sweep={"samples": 3000},
    )
    counted = extractor_flops(params, DIGITS)
    assert counted["inception"] == pytest.approx(real, rel=1e-3)
    assert counted["vgg"] == pytest.approx(2 * 15.466e9, rel=1e-3)  # 15.470 G with its last layer
    judge = Classifier(costs.classifier_of(params, 10).config).eval()
    with torch.no_grad():
        own = costs.count_flops(lambda: judge(torch.zeros(1, 1, 28, 28)))
    assert counted["classifier"] == counted["random"] == own


def test_every_set_of_a_stage_is_counted(make_params):
    """Of two replicates each, measured by one extractor that is the judge as well."""
    params = make_params(
        evaluation={"seeds": [0, 1], "samples": 300},
        training={"other_label_smoothings": []},
        temperature={"values": [1.0, 2.0, 3.0], "samples": 400},
        cas={"samples": 500},
    )
    judge = extractor_flops(params, DIGITS)["classifier"]
    stages = planned(params)
    assert stages["temperature"].flops_of("features") == 2 * 3 * 400 * judge
    assert stages["reject"].flops == stages["reject"].flops_of("features") == 4 * 500 * judge
    cells = params.sweep.samples * len(params.sweep.seeds)
    cells *= 7 * len(params.sweep.iterations) + len(params.sweep.crossed) ** 2
    assert stages["sweep"].flops_of("features") == (cells + DIGITS.train) * judge
    assert {each.stage for each in measured_sets(params, DIGITS)} < set(stages)


def test_the_slower_of_networks_and_processors_is_waited_for():
    part = Part(
        "training", flops=800, devices=4, picture_core_seconds=600.0, augmenting_core_seconds=100.0
    )
    assert part.seconds(Device(1, 8)) == 200
    assert part.seconds(Device(100, 1)) == 150
    assert part.seconds(Device(100, 100)) == 25
    loaded = dataclasses.replace(part, loaders=7)  # which share both
    assert loaded.seconds(Device(1, 8)) == 200
    assert loaded.seconds(Device(100, 8)) == 700 / 7 / 4
    stage = Stage("cas", (part, Part("validation", flops=200, devices=1)))
    assert stage.seconds(Device(1, 8)) == 400
    assert stage.devices == 1000 / 400 and stage.core_seconds == 700


def test_what_is_in_float32_has_a_rate_of_its_own():
    part = Part("training", flops=800, devices=4, float32=200)
    assert part.seconds(Device(10, 8)) == 20
    assert part.seconds(Device(10, 8, float32=2)) == (60 + 100) / 4
    rounded = Part("training", flops=800, devices=4, float32=200, tf32=400)
    assert rounded.seconds(Device(10, 8)) == 20
    assert rounded.seconds(Device(10, 8, float32=2)) == (20 + 100 + 80) / 4  # at half of 10
    assert rounded.seconds(Device(10, 8, float32=8)) == (20 + 25 + 50) / 4  # as all of float32
    stage = Stage("sweep", (part, Part("features", flops=100, devices=1, float32=100)))
    assert stage.float32 == 300 and stage.seconds(Device(10, 8, float32=2)) == 90


def test_networks_are_in_the_precision_that_the_params_say(make_params):
    """Coding, looks and features always in float32."""
    bf16 = {"classifier": {"bf16": True}, "tokenizer": {"bf16": True, "tf32": True}}
    bf16 |= {"training": {"bf16": True}, "decoding": {"bf16": True}}
    quick = planned(make_params(**bf16, autoregressive={"bf16": True}))
    for name in ("train_classifier", "train_tokenizer", "train_transformer", "cas", "sweep"):
        stage = quick[name]
        coded = sum(part.float32 for part in stage.parts if part.what == "sampling")
        assert stage.float32 - coded == sum(map(stage.flops_of, ("validation", "features"))) > 0
        assert coded < stage.flops_of("sampling") or not coded
    assert quick["cache_tokens"].float32 == quick["cache_tokens"].flops

    def more(stage: str, **changes: dict) -> int:
        """FLOPs that are in float32 besides, with other params."""
        sections = {k: bf16.get(k, {}) | changes.get(k, {}) for k in bf16 | changes}
        return planned(make_params(**sections))[stage].float32 - quick[stage].float32

    tokenizer, discriminator, *_ = plan_networks(make_params(), DIGITS)
    judged = discriminator.total_flops + tokenizer.adversarial_flops
    assert more("train_tokenizer", tokenizer={"tf32": False}) == judged > 0
    every = {"bf16": False, "tf32": False}
    both = tokenizer.total_flops + discriminator.total_flops
    assert more("train_tokenizer", tokenizer=every) == both
    assert more("train_tokenizer", tokenizer={"bf16": False}) == 0  # TF32 as well
    trained = quick["train_transformer"].flops_of("training")
    assert more("train_transformer", training={"bf16": False}) == trained
    passes = quick["temperature"].flops - quick["temperature"].float32
    assert more("temperature", decoding={"bf16": False}) == passes
    assert more("evaluate", autoregressive={"bf16": False}) > 0
    assert more("train_classifier", classifier={"bf16": False}) > 0


def test_pictures_are_decoded_at_the_measured_rate():
    """446 of ImageNet's a second and core; the classifier's are more than its GPUs wait for."""
    params = preset_params("imagenet256")
    classifier = planned(params, data_size(params))["train_classifier"]
    pictures = params.classifier.steps * params.classifier.batch_size
    assert classifier.parts[0].picture_core_seconds == pytest.approx(pictures / 446, rel=0.01)
    cores, loaders = params.ray.cpus_per_worker, params.ray.loaders_per_worker
    assert loaders == cores - 1
    assert classifier.parts[0].seconds(Device(150e12, cores)) == pytest.approx(
        classifier.parts[0].picture_core_seconds / (16 * loaders)
    )


def test_loaders_augment_what_the_papers_cas_would_wait_for():
    """Of each picture a draw of 57 µs, by every worker for all of the batch, and 4 ns a pixel; and
    of its own eighth decoding, of the 2 thirds that are samples 35 ns a pixel. Of two classifiers
    at once."""

    preset = preset_params("imagenet256")
    data = data_size(preset)
    networks = plan_networks(preset, data)  # which no loader changes

    def cas_seconds(loaders: int) -> float:
        ray = preset.ray.model_copy(update={"loaders_per_worker": loaders})
        params = preset.model_copy(update={"ray": ray})
        stages = {stage.name: stage for stage in plan_stages(params, data, networks)}
        return stages["cas"].parts[1].seconds(Device(150e12, 8))

    steps = 3 * 450_000 / 2
    augmenting = steps * 256 * (57e-6 + 256**2 * 4e-9 / 8)
    assert cas_seconds(0) == pytest.approx(augmenting, rel=1e-6)
    samples, real = 55e-6 + 256**2 * 35e-9, 1 / 446
    cropping = steps * 256 / 8 * (real + 2 * samples) / 3
    assert cas_seconds(7) == pytest.approx((augmenting + cropping) / 7, rel=0.01)
