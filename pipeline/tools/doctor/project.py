"""The folder: the project, its params and DVC."""

import shutil
from importlib import metadata
from pathlib import Path

from pipeline.runtime.dag import DVC_FILE, PARAMS_FILE, read_stages
from pipeline.runtime.errors import UserError
from pipeline.tools.doctor.finding import Finding


def project() -> Finding:
    if not DVC_FILE.exists():
        found = f"none in {Path.cwd()}: {DVC_FILE} is missing"
        way_out = (
            "models of other places can be used here (--model); a run needs the clone's folder"
        )
        return Finding("project", "note", found, way_out)
    read_stages()  # refuses a damaged dvc.yaml
    if not Path(".git").exists():
        way_out = "git init && git add -A && git commit, so that results name their commit"
        return Finding("project", "note", "this folder is no git repository", way_out)
    return Finding("project", "good", str(Path.cwd()))


def params() -> Finding:
    from pipeline.config.params import load_params
    from pipeline.config.paths import check_files

    if not PARAMS_FILE.exists():
        if not DVC_FILE.exists():
            return Finding("params", "note", "none, where there is no project")
        return Finding("params", "fails", f"{PARAMS_FILE} is missing", "maskgit preset mnist5k")
    try:
        params = load_params()
        if DVC_FILE.exists():
            check_files(params.model_dump())
    except UserError as error:
        return Finding("params", "fails", str(error), "mend it, or take a preset: maskgit preset")
    from pipeline.runtime.ray_cluster import cluster_address

    if params.training.compile and not cluster_address():  # else other machines train
        from pipeline.runtime.device import require_compiler

        require_compiler(params.ray.use_gpu)
    return Finding("params", "good", f"preset {params.preset}, data {params.data.source}")


def dvc() -> Finding:
    version = f"DVC {metadata.version('dvc')}"
    if DVC_FILE.exists() and not Path(".dvc").exists():
        return Finding(
            "DVC", "fails", f"{version}; .dvc is missing", "dvc init (--no-scm without git)"
        )
    if shutil.which("dvc") is None:
        way_out = "activate the environment: . .venv/bin/activate"
        return Finding("DVC", "fails", f"{version}; its command is not on the PATH", way_out)
    return Finding("DVC", "good", version)
