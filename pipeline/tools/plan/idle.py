"""Stages whose trainings, side by side, leave devices idle."""

from pipeline.config.params import Params
from pipeline.config.trainings import classifier_count, trial_count, workers_per_classifier
from pipeline.experiments.ablation.grid import trial_workers
from pipeline.tools.plan.stages import at_work
from pipeline.tools.plan.work import Device, Stage

# Told of a stage with more than this share of the run's time and of the devices idle.
LARGE, NOTICED = 0.01, 0.05


def idle_devices(params: Params, stages: list[Stage], device: Device | None) -> list[str]:
    """A line for each large stage that leaves some idle. (More workers a training are not advised:
    whether these are quicker depends on the network between them, which is not planned.)

    Args:
        device: without it times are those of FLOPs alone.
    """

    def time(stage: Stage) -> float:
        if device is None:
            return sum(part.flops / part.devices for part in stage.parts)
        return stage.seconds(device)

    devices, run, lines = params.ray.num_workers, sum(map(time, stages)), []
    each_trial, each_classifier = trial_workers(params).count, workers_per_classifier(params)
    for name, key, count, what, each in (
        ("sweep", "workers_per_trial", trial_count(params), "trials", each_trial),
        ("cas", "workers_per_classifier", classifier_count(params), "classifiers", each_classifier),
    ):
        seconds = next(time(stage) for stage in stages if stage.name == name)
        idle = devices - at_work(count, each, devices)
        if idle > NOTICED * devices and seconds > LARGE * run:
            lines.append(
                f"{name} leaves {idle:.3g} of {devices} devices idle: "
                f"{min(count, devices // each)} of its {count} {what} of {each} workers fit at "
                f"once ({name}.{key}; docs/scaling.md says where more are slower)."
            )
    return lines
