"""Stages that leave devices idle though they have trainings beside one another, and the number of
workers a training that would leave fewer."""

from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.tools.plan.networks import CAS_SETS, DataSize, Network
from pipeline.tools.plan.stages import Stage, at_work, plan_stages

# Told of a stage with more than this share of the run's time, where more than this share of the
# devices is idle and of its time is saved.
LARGE, NOTICED = 0.01, 0.05


@dataclass(frozen=True)
class Trainings:
    """A stage's trainings."""

    section: str  # of params.yaml, named like its stage
    param: str  # how many workers each has
    name: str
    count: int

    def workers(self, params: Params) -> int:
        return getattr(getattr(params, self.section), self.param)


def idle_devices(
    params: Params,
    data: DataSize,
    networks: list[Network],
    stages: list[Stage],
    tflops: float | None,
) -> list[str]:
    """A line for each large stage that more workers a training would make quicker.

    Args:
        networks: of the params, as are the stages.
        tflops: rate of a device, in 10¹² FLOP/s; without it times are those of FLOPs alone, and
            are not told.
    """

    def time(stage: Stage) -> float:
        if tflops is None:
            return sum(part.flops / part.devices for part in stage.parts)
        return stage.seconds(tflops * 1e12, params.ray.cpus_per_worker)

    devices, run, lines = params.ray.num_workers, sum(map(time, stages)), []
    for trainings in _trainings(params):
        now = _stage(stages, trainings)
        if now.devices > (1 - NOTICED) * devices or time(now) < LARGE * run:
            continue
        changed = _with_more_workers(params, trainings)
        if changed is None:
            continue
        then = _stage(plan_stages(changed, data, networks), trainings)
        saved = 1 - time(then) / time(now)
        if saved > NOTICED:
            key, each = f"{trainings.section}.{trainings.param}", trainings.workers(changed)
            line = f"{_idle(params, trainings, now)} With {key} {each} it leaves "
            line += f"{devices - then.devices:.1f}"
            if tflops is not None:
                line += f", and takes {saved:.0%} less time, messages and starts of kernels aside"
            lines.append(f"{line}.")
    return lines


def _trainings(params: Params) -> list[Trainings]:
    """Those that run beside one another, of as many workers each as a param says."""
    trials = len(params.sweep.schedules) * len(params.sweep.seeds)
    classifiers = CAS_SETS * len(params.evaluation.seeds)
    return [
        Trainings("sweep", "workers_per_trial", "trials", trials),
        Trainings("cas", "workers_per_classifier", "classifiers", classifiers),
    ]


def _stage(stages: list[Stage], trainings: Trainings) -> Stage:
    return next(stage for stage in stages if stage.name == trainings.section)


def _with_more_workers(params: Params, trainings: Trainings) -> Params | None:
    """The params with the next number of workers that keeps all devices at work. (It divides them,
    and so the batches. Fewer workers than there are would need more memory each.)"""
    devices, section = params.ray.num_workers, getattr(params, trainings.section)
    for each in range(trainings.workers(params) + 1, devices + 1):
        if at_work(trainings.count, each, devices) == devices:
            own = section.model_copy(update={trainings.param: each})
            return params.model_copy(update={trainings.section: own})
    return None


def _idle(params: Params, trainings: Trainings, stage: Stage) -> str:
    devices, each = params.ray.num_workers, trainings.workers(params)
    at_once = min(trainings.count, devices // each)
    return (
        f"{stage.name} leaves {devices - stage.devices:.1f} of {devices} devices idle: "
        f"{at_once} of its {trainings.count} {trainings.name} of {each} workers fit at once."
    )
