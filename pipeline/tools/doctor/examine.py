"""All checks. Each finds what was seen to stop or to slow a run, with the way out where it does."""

from collections.abc import Callable

from pipeline.runtime.errors import UserError, one_line
from pipeline.tools.doctor import machine, project, run, services
from pipeline.tools.doctor.finding import Finding


def examine() -> list[Finding]:
    """Every check, in the order in which a new user meets them."""
    checks = (
        *(machine.python, machine.packages, machine.torch, machine.memory, machine.disk),
        *(project.project, project.params, project.dvc, run.data, run.workers, run.room),
        *(services.ray, services.tracking),
    )
    return [finding for check in checks if (finding := _one(check))]


def _one(check: Callable[[], Finding | None]) -> Finding | None:
    subject = check.__name__
    try:
        return check()
    except UserError as error:
        found, _, way_out = str(error).partition("; ")
        return Finding(subject, "fails", found, way_out)
    except Exception as error:  # a broken installation raises nearly anything
        reason = one_line(f"{type(error).__name__}: {error}")
        way_out = "pip install --force-reinstall of what it names"
        return Finding(subject, "fails", reason, way_out)


def findings_text(findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<6} {finding.subject:<10} {finding.found}")
        if finding.way_out:
            lines.append(f"{'':<17} → {finding.way_out}")
    failing = sum(finding.state == "fails" for finding in findings)
    closing = f"{failing} of {len(findings)} would stop a run" if failing else "ready"
    return "\n".join([*lines, closing])
