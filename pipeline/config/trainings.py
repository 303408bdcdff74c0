"""The trainings of the sweep and of CAS, which run beside one another, and the workers of each."""

from math import gcd

from pipeline.config.schema import Sections

CAS_SETS = 6  # MaskGIT's and the baseline's samples and real images, augmented and not


def trial_count(params: Sections) -> int:
    """Trainings of the sweep."""
    return len(params.sweep.schedules) * len(params.sweep.seeds)


def classifier_count(params: Sections) -> int:
    """Trainings of CAS."""
    return CAS_SETS * len(params.evaluation.seeds)


def workers_per_trial(params: Sections) -> int:
    """Those that the params say, or as few as leave none of `ray.num_workers` idle."""
    return params.sweep.workers_per_trial or _fewest(params, trial_count(params))


def workers_per_classifier(params: Sections) -> int:
    """Likewise."""
    return params.cas.workers_per_classifier or _fewest(params, classifier_count(params))


def named_by(params: Sections, key: str) -> str:
    """The param that sets the number of workers which `key` would.

    Args:
        key: `sweep.workers_per_trial` or `cas.workers_per_classifier`.
    """
    section, _, name = key.partition(".")
    return "ray.num_workers" if getattr(getattr(params, section), name) is None else key


def _fewest(params: Sections, trainings: int) -> int:
    """With fewer for each more trainings run at once, and wait less for one another's gradients;
    where that many do not divide both numbers, the last of them would not need all workers."""
    workers = params.ray.num_workers
    return workers // gcd(workers, trainings)
