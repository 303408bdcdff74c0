"""All checks. Each finds what was seen to stop or to slow a run, with the way out where it does."""

from collections.abc import Callable

from pipeline.runtime.errors import UserError, one_line
from pipeline.tools.doctor import machine, project, run, services
from pipeline.tools.doctor.finding import Finding

CHECKS: dict[str, Callable[[], Finding | None]] = {
    "Python": machine.python,
    "packages": machine.packages,
    "device": machine.torch,
    "memory": machine.memory,
    "disk": machine.disk,
    "project": project.project,
    "params": project.params,
    "DVC": project.dvc,
    "data": run.data,
    "workers": run.workers,
    "room": run.room,
    "Ray": services.ray,
    "tracking": services.tracking,
}


def examine() -> list[Finding]:
    """Every check, in the order in which a new user meets them; those of params where there are
    some."""
    return [found for subject, check in CHECKS.items() if (found := _one(subject, check))]


def _one(subject: str, check: Callable[[], Finding | None]) -> Finding | None:
    try:
        return check()
    except UserError as error:
        found, _, way_out = str(error).partition("; ")
        return Finding(subject, "fails", found, way_out)
    except OSError as error:
        found = f"{error.filename or subject}: {error.strerror or error}"
        return Finding(subject, "fails", found, "change its permissions, or name another place")
    except Exception as error:  # a broken installation raises nearly anything
        reason = one_line(f"{type(error).__name__}: {error}")
        return Finding(subject, "fails", reason, "pip install --force-reinstall of what it names")


def findings_text(findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<6} {finding.subject:<10} {one_line(finding.found)}")
        if finding.way_out:
            lines.append(f"{'':<17} → {one_line(finding.way_out)}")
    failing = sum(finding.state == "fails" for finding in findings)
    closing = f"{failing} of {len(findings)} would stop a run" if failing else "ready"
    return "\n".join([*lines, closing])
