"""How much quicker two workers are than one: `OMP_NUM_THREADS=1 python -m tests.speed_of_workers
[WORK …]` in a project that ran, on a machine with nothing else to do. Workers have started and
opened their networks before the clock does, but for CAS, each of whose classifiers starts a process
anew. The shortest of three times counts."""

import os
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import torch
from torch.nn import Module

from pipeline.config.params import Params, load_params
from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.config.replicates import main_replicates
from pipeline.data.images.shards import ImageShards
from pipeline.evaluation.feature_files import PART, open_extraction
from pipeline.evaluation.images import CenterCrops
from pipeline.evaluation.samplers import sampler_of
from pipeline.experiments.cas import AUGMENTATIONS, REAL, CasJob, run_cas
from pipeline.runtime.batches import Alone, Maker, Several
from pipeline.runtime.process import set_up
from pipeline.runtime.ray_cluster import join_ray
from pipeline.runtime.trials import Needs, run_trials
from pipeline.sampling import balanced_labels, sample_batches
from pipeline.training.tokens import Coder

CPU = torch.device("cpu")
REPEATS = 3
KEPT = tempfile.TemporaryDirectory()


def token_cache(params: Params) -> tuple[Maker, list[tuple]]:
    count = len(ImageShards("data/images", "train"))
    size = params.tokens.batch_size
    batches = [(start, min(start + size, count)) for start in range(0, count, size)]
    return Maker(Coder, "train", 8, params), batches


def sampling(params: Params) -> tuple[Maker, list[tuple]]:
    labels, size = balanced_labels(12 * params.decoding.batch_size, 10), params.decoding.batch_size
    batches = sample_batches(params.decoding_settings(), labels, batch_size=size, seed=0)
    return sampler_of(main_replicates(params, "transformer")[0]), list(batches)


def features(params: Params) -> tuple[Maker, list[tuple]]:
    images = CenterCrops(Path("data/images"), "train", params.data)
    starts = range(0, len(images) - PART, PART)
    batches = [(start, start + PART) for start in starts] * 16
    maker = Maker(open_extraction, "classifier", images, params, Path.cwd())
    return maker, batches


def inception_features(params: Params) -> tuple[Maker, list[tuple]]:
    """The paper's extractor, which sees 299 × 299 pixels, with random weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    weights = Path(KEPT.name, "inception.pth")
    torch.manual_seed(0)
    with (
        patch.object(torch, "load", lambda *_, **__: None),
        patch.object(Module, "load_state_dict"),
    ):
        network = FeatureExtractorInceptionV3("", ["2048"], feature_extractor_weights_path="-")
    torch.save(network.state_dict(), weights)
    evaluation = params.evaluation.model_copy(update={"inception_weights": str(weights)})
    own = params.model_copy(update={"evaluation": evaluation})
    images = CenterCrops(Path("data/images"), "train", own.data)
    batches = [(start, start + 16) for start in range(0, 192, 16)]
    return Maker(open_extraction, "inception", images, own, Path.cwd()), batches


WORK = {work.__name__: work for work in (token_cache, sampling, features, inception_features)}


def seconds(work: tuple[Maker, list[tuple]], workers: Alone) -> float:
    maker, batches = work
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number:06d}.npy") for number in range(len(batches))]
        named = dict(zip(files, batches, strict=True))
        list(workers.make(maker, dict(list(named.items())[:4])))
        started = time.perf_counter()
        assert len(list(workers.make(maker, named))) == len(batches)
        return time.perf_counter() - started


def cas_seconds(params: Params, two: bool) -> float:
    """Time of four classifiers, one after the other or two at once."""
    classifier = params.classifier.model_copy(update={"steps": params.cas.steps})
    own = params.model_copy(update={"classifier": classifier}).model_dump()
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            CasJob(
                images=REAL,
                augmentation=augmentation,
                seed=seed,
                params=own,
                folder=f"{folder}/{augmentation}{seed}",
                images_dir=str(IMAGES.absolute()),
                samples_dir="",
                classifier_dir=str(CLASSIFIER.absolute()),
            )
            for augmentation in AUGMENTATIONS
            for seed in (0, 1)
        ]
        started = time.perf_counter()
        if two:
            needs = Needs(1, {"CPU": 1}, 0, Path(folder))
            run_trials(run_cas, jobs, needs, stage="cas", on_done=lambda job, row: None)
        else:
            for job in jobs:
                run_cas(job)
        return time.perf_counter() - started


def main(names: list[str]) -> None:
    set_up()  # as every process of the pipeline
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("set OMP_NUM_THREADS=1, so that one worker has one core")
    params = load_params()
    pair = params.ray.model_copy(update={"num_workers": 2, "cpus_per_worker": 1})
    if unknown := set(names) - {"cas", *WORK}:
        sys.exit(f"no such work: {', '.join(unknown)}; one of cas, {', '.join(WORK)}")
    for name in names or ["cas", *WORK]:
        if name == "cas":
            join_ray()
            times = [
                (cas_seconds(params, False), cas_seconds(params, True)) for _ in range(REPEATS)
            ]
        else:
            work, several = WORK[name](params), Several(pair)
            times = [(seconds(work, Alone(CPU)), seconds(work, several)) for _ in range(REPEATS)]
            several.end()  # or who comes next would wait for its cores
        one, both = map(min, zip(*times, strict=True))
        print(f"{name:18} {one:6.1f} s, two workers {both:6.1f} s: {one / both:.2f} ×", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
