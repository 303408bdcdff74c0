"""The trainings of the sweep and of CAS, which run in parallel, and the number of workers of
each."""

from math import gcd

from pipeline.config.params import Params

CAS_SETS = 6  # MaskGIT's and the baseline's samples and real images, augmented and not


def trial_count(params: Params) -> int:
    """The number of trainings of the sweep."""
    return len(params.sweep.schedules) * len(params.sweep.seeds)


def classifier_count(params: Params) -> int:
    """The number of trainings of CAS."""
    return CAS_SETS * len(params.evaluation.seeds)


def workers_per_trial(params: Params) -> int:
    """The number of workers of each training of the sweep."""
    return params.sweep.workers_per_trial or _fewest(params, trial_count(params))


def workers_per_classifier(params: Params) -> int:
    """The number of workers of each training of CAS."""
    return params.cas.workers_per_classifier or _fewest(params, classifier_count(params))


def _fewest(params: Params, trainings: int) -> int:
    """The smallest number of workers per training that keeps all of `ray.num_workers` busy until
    the end."""
    workers = params.ray.num_workers
    return workers // gcd(workers, trainings)
