"""Loads params.yaml as typed params, and refuses combinations of params that cannot work."""

import math
import reprlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from pipeline.config import schema
from pipeline.config.paths import OUTPUTS
from pipeline.decoding.settings import DecodingSettings, expanded
from pipeline.runtime.dag import FILE_PARAMS, PARAMS_FILE, flatten
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.files import read_yaml
from pipeline.runtime.project import in_project, lies_in

RELEASE = DecodingSettings(iterations=8, schedule="cosine", choice_temperature=4.5)


class Params(schema.Section):
    """All params of params.yaml. A param that the file omits has its default value."""

    preset: schema.Text = "mnist5k"
    """Name of the preset that the values come from; the report, models and MLflow runs show it."""
    seed: schema.Seed = 0
    """Seed of all random draws except those that evaluation.seeds or sweep.seeds control. On one
    machine, the same params give byte-identical results; GPU training may differ by rounding."""
    data: schema.Data = schema.Data()
    classifier: schema.Classifier = schema.Classifier()
    tokenizer: schema.Tokenizer = schema.Tokenizer()
    tokens: schema.Tokens = schema.Tokens()
    transformer: schema.Transformer = schema.Transformer()
    training: schema.Training = schema.Training()
    autoregressive: schema.Autoregressive = schema.Autoregressive()
    ray: schema.Ray = schema.Ray()
    decoding: schema.Decoding = schema.Decoding()
    sweep: schema.Sweep = schema.Sweep()
    oracle: schema.Oracle = schema.Oracle()
    evaluation: schema.Evaluation = schema.Evaluation()
    cas: schema.Cas = schema.Cas()
    temperature: schema.Temperature = schema.Temperature()
    editing: schema.Editing = schema.Editing()
    rejection: schema.Rejection = schema.Rejection()
    reconstruction: schema.Reconstruction = schema.Reconstruction()
    speed: schema.Speed = schema.Speed()
    mlflow: schema.Mlflow = schema.Mlflow()

    @property
    def grid(self) -> int:
        """Number of tokens along each side of an image."""
        return self.data.image_size // self.tokenizer.downsampling

    @property
    def num_tokens(self) -> int:
        return self.grid**2

    @property
    def stored_side(self) -> int:
        """Maximum length of a stored image's shorter side, in pixels. Smaller images decode faster.
        The smallest square crop of a square image of this size is 2 × `data.image_size` wide."""
        smallest = min(self.data.crop_scale[0], self.classifier.crop_scale[0])
        return math.ceil(2 * self.data.image_size / smallest**0.5)

    @property
    def classifier_images(self) -> schema.Data:
        """A copy of `data` whose `crop_scale` is `classifier.crop_scale`, to train classifiers."""
        return self.data.model_copy(update={"crop_scale": self.classifier.crop_scale})

    @property
    def feature_dimensions(self) -> int:
        """The number of features that `evaluation.extractor` computes per image."""
        architecture = self.classifier.architecture
        if self.evaluation.extractor == "inception":
            return 2048
        if architecture == "small":
            return 4 * self.classifier.width
        return 512 if architecture.endswith(("resnet18", "resnet34")) else 2048

    def least_images(self, covariance: bool = True) -> tuple[int, str]:
        """Returns the smallest number of images that is enough for all metrics, and the name of the
        param or metric that requires this number. If `covariance` is false, FID is ignored."""
        evaluation, features = self.evaluation, self.feature_dimensions
        return max(
            (evaluation.neighbors + 1, "evaluation.neighbors"),
            (evaluation.kid_subset_size, "evaluation.kid_subset_size"),
            (features + 1 if covariance else 0, f"FID of {features} features"),
        )

    def decoding_settings(
        self, *, iterations: int | None = None, autoregressive: bool = False
    ) -> DecodingSettings:
        """The decoding settings of MaskGIT, or of the autoregressive baseline. If `iterations` is
        given, it replaces `decoding.iterations`."""
        own: dict[str, Any] = {"schedule": self.training.mask_schedule}
        own |= {"iterations": iterations} if iterations else {}
        own |= self.autoregressive.model_dump(exclude={"steps"}) if autoregressive else {}
        return DecodingSettings(**self.decoding.model_dump(exclude={"batch_size", *own}), **own)

    def sweep_designs(self) -> list[tuple[int, DecodingSettings]]:
        """Pairs (training steps, decoding settings): all combinations in the grids `sweep.designs`.
        Omitted steps come from `sweep.steps`, other omitted settings from `decoding_settings()`."""
        key, grids = "sweep.designs", dict[int, list[dict[str, Any]]]()
        for grid in self.sweep.designs:
            settings = {name: grid[name] for name in grid if name != "steps"}
            given = grid.get("steps", self.sweep.steps)
            for steps in given if isinstance(given, list) else [given]:
                if type(steps) is not int or steps < 1:
                    raise UserError(key, f"steps: {steps} is invalid", "use an integer ≥ 1")
                grids.setdefault(steps, []).append(settings)
        main = self.decoding_settings()
        return [(steps, found) for steps in grids for found in _designs(key, main, grids[steps])]

    def sweep_trainings(self) -> list[tuple[str, int]]:
        """Pairs (mask schedule, training steps): the sweep trains one model per pair and seed."""
        found = [(schedule, self.sweep.steps) for schedule in self.sweep.schedules]
        found += [(each.schedule, steps) for steps, each in self.sweep_designs()]
        return [each for each in dict.fromkeys(found) if each[0] in self.sweep.schedules]

    def oracle_settings(self) -> list[DecodingSettings]:
        """All combinations in the grids `oracle.designs`. `RELEASE` supplies omitted settings."""
        return _designs("oracle.designs", RELEASE, self.oracle.designs)

    @model_validator(mode="after")
    def _combinations(self):
        self._check_images()
        self._check_samples()
        self._check_trainings()
        self._check_workers()
        self._check_folders()
        return self

    def _check_images(self) -> None:
        factor, size, tokenizer = self.tokenizer.downsampling, self.data.image_size, self.tokenizer
        if size % factor:
            reason = f"{size} is not divisible by {factor} = 2^(len(tokenizer.multipliers) - 1)"
            raise UserError("data.image_size", reason, f"use a multiple of {factor}")
        if tokenizer.perceptual != "classifier" and size < 32:
            reason = f"{tokenizer.perceptual} needs images of 32 pixels or more, not {size}"
            raise UserError("tokenizer.perceptual", reason, "set it to 'classifier'")
        if tokenizer.discriminator == "stylegan" and (size < 4 or size & (size - 1)):
            reason = f"stylegan needs a data.image_size of 4, 8, 16, …, not {size}"
            raise UserError("tokenizer.discriminator", reason, "use 'patch' or another image_size")
        for key, iterations in (
            ("decoding.iterations", self.decoding.iterations),
            ("editing.iterations", self.editing.iterations),
            ("reconstruction.iterations", self.reconstruction.iterations),
            ("sweep.iterations", max(self.sweep.iterations)),
            ("sweep.designs", max((d.iterations for _, d in self.sweep_designs()), default=1)),
        ):
            if iterations > self.num_tokens:
                reason = f"{iterations} iterations are more than the {self.num_tokens} tokens"
                raise UserError(key, f"{reason} of an image", f"use at most {self.num_tokens}")
        self.oracle_settings()  # raises if a design is wrong
        total, needed = self.oracle.total_tokens, 100 * max(self.oracle.tokens)
        if total < needed:
            reason = f"{total} tokens are too few for 100 samples of the largest grid"
            raise UserError("oracle.total_tokens", reason, f"use at least {needed}")
        dilate, known = self.editing.dilate, self.grid // 4  # unmasked tokens beside a centred box
        if dilate and dilate >= known:
            reason = f"{dilate} leaves no unmasked token in a grid of {self.grid}×{self.grid}"
            raise UserError("editing.dilate", reason, f"use at most {max(0, known - 1)}")

    def _check_samples(self) -> None:
        evaluation = self.evaluation
        if evaluation.second_extractor == evaluation.extractor:
            reason = f"{evaluation.extractor} is already evaluation.extractor"
            raise UserError("evaluation.second_extractor", reason, "choose another extractor")
        needed, user = max(self.least_images(), (evaluation.is_splits, "evaluation.is_splits"))
        for section in ("sweep", "evaluation"):
            samples = getattr(self, section).samples
            if samples < needed:
                reason = f"{samples} samples are too few for {user}"
                raise UserError(f"{section}.samples", reason, f"use at least {needed}")

    def _check_trainings(self) -> None:
        training, network = self.training, self.transformer
        if network.hidden % network.heads:
            reason = f"{network.heads} does not divide transformer.hidden, {network.hidden}"
            raise UserError("transformer.heads", reason, f"use a divisor of {network.hidden}")
        if training.label_smoothing in training.other_label_smoothings:
            reason = f"{training.label_smoothing} equals training.label_smoothing"
            raise UserError("training.other_label_smoothings", reason, "remove this value")
        designs, main = [each for _, each in self.sweep_designs()], training.mask_schedule
        # Designs with the main schedule are skipped if it is not in sweep.schedules.
        named = [each.schedule for each in designs if each.schedule != main]
        for key, schedules in {"crossed": self.sweep.crossed, "designs": named}.items():
            if untrained := set(schedules) - set(self.sweep.schedules):
                reason = f"the schedule {min(untrained)} is not in sweep.schedules"
                raise UserError(f"sweep.{key}", reason, "remove it, or add it to sweep.schedules")
        if self.classifier.pretrained and self.classifier.architecture == "small":
            reason = "torchvision ResNet weights do not fit classifier.architecture=small"
            way_out = "set the architecture to the weights' ResNet, such as torchvision:resnet50"
            raise UserError("classifier.pretrained", reason, way_out)
        drops = training.label_drop > 0 or network.pretrained
        own = self.decoding.guidance_scale > 0
        if not drops and (own or any(each.guidance_scale > 0 for each in designs)):
            reason = "guidance needs a model that was trained on some images without their class"
            way_out = "set training.label_drop to 0.1, for example, or guidance_scale to 0"
            key = "decoding.guidance_scale" if own else "sweep.designs"
            raise UserError(key, reason, way_out)

    def _check_workers(self) -> None:
        ray, training = self.ray, self.training
        for key, workers, section in (
            ("ray.num_workers", ray.num_workers, "classifier"),
            ("ray.num_workers", ray.num_workers, "tokenizer"),
            ("ray.num_workers", ray.num_workers, "training"),
            ("sweep.workers_per_trial", self.sweep.workers_per_trial, "training"),
            ("cas.workers_per_classifier", self.cas.workers_per_classifier, "classifier"),
        ):
            size = getattr(self, section).batch_size
            if workers is None and not ray.elastic:
                way_out = "give a number, or set ray.elastic to true"
                raise UserError(key, "null is allowed only if ray.elastic is true", way_out)
            if workers and size % workers:
                reason = f"{section}.batch_size {size} is not divisible by {workers} workers"
                raise UserError(key, reason, f"choose a divisor of {size}")
        if ray.loaders_per_worker and ray.loaders_per_worker >= ray.cpus_per_worker:
            reason = f"{ray.loaders_per_worker} loaders leave no CPU for training"
            raise UserError("ray.loaders_per_worker", reason, "use fewer than ray.cpus_per_worker")
        for workers in (ray.num_workers, self.sweep.workers_per_trial or ray.num_workers):
            share = training.batch_size // workers
            if share % training.accumulate:
                reason = f"a worker's {share} images are not divisible by {training.accumulate}"
                raise UserError("training.accumulate", reason, f"choose a divisor of {share}")

    def _check_folders(self) -> None:
        values = flatten(self.model_dump())
        given = {key: values[key] for key in (*FILE_PARAMS, "data.download_dir")}
        given["ray.storage_path"], given["data.source"] = self.ray.folder, self.data.folder
        for key, path in given.items():
            for folder in OUTPUTS:
                if path and lies_in(in_project(path), in_project(folder)):
                    reason = f"{path} lies in {folder}, which DVC deletes before a stage runs"
                    raise UserError(key, reason, "use a path outside this folder")


def _designs(
    key: str, settings: DecodingSettings, grids: list[dict[str, Any]]
) -> list[DecodingSettings]:
    """All combinations in `grids`. Raises a `UserError` about param `key` if a value is wrong."""
    try:
        return expanded(settings, grids)
    except ArgumentError as error:
        raise UserError(key, f"{error.subject}: {error.reason}", error.way_out) from error


def load_params(path: Path | str = PARAMS_FILE) -> Params:
    """Read and validate a params file. Raises a `UserError` if a key is unknown, a value is wrong,
    or params contradict each other."""
    return validated(read_yaml(Path(path)), path)


def validated(values: dict[str, Any], path: Path | str) -> Params:
    """Validate the values of the params file `path`. Raises a `UserError` if a value is wrong."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        every: list[Any] = error.errors(include_url=False)
        every.sort(key=lambda each: each["type"] != "extra_forbidden")  # unknown keys first
        wrong, *others = [_explained(each) for each in every]
        also = "".join(f"; also wrong: {each.subject}: {each.reason}" for each in others)
    except UserError as error:
        wrong, also = error, ""
    raise UserError(f"{path}: {wrong.subject}", wrong.reason, wrong.way_out + also)


def _explained(error: dict[str, Any]) -> UserError:
    *sections, name = key = [str(part) for part in error["loc"]]
    # Messages of this project's validators have the form `reason; way out`.
    reason, _, way_out = error["msg"].removeprefix("Value error, ").partition("; ")
    if error["type"] == "extra_forbidden":
        known: Any = Params
        for section in sections:
            known = known.model_fields[section].annotation
        reason, way_out = "unknown key", schema.way_out(name, known.model_fields, "remove the key")
    elif not way_out:
        reason, way_out = f"{reason} (given: {reprlib.repr(error['input'])})", "correct the value"
    return UserError(".".join(key), reason, way_out)
