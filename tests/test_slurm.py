"""deploy/slurm.sh: what can be known of a job for SLURM where there is none."""

import contextlib
import os
import re
import signal
import subprocess
from types import SimpleNamespace

import pytest
import ray

from deploy import wait_for_nodes
from pipeline.config.presets import preset_params
from tests.project import ROOT

SLURM = ROOT / "deploy/slurm.sh"
PAPER = preset_params("imagenet256").ray
# What commands do besides noting their call: the head lives until the DAG has run, which begins
# when all have noted theirs.
DOES = {
    "ray": "echo $$ > head; exec sleep 600",
    "timeout": "until [ $(grep -c . calls) -ge $CALLS ] && [ -s head ]; do sleep 0.1; done",
    "dvc": "kill $(cat head)",
}


def test_the_slurm_script_is_a_clean_one():
    done = subprocess.run(["shellcheck", SLURM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_its_nodes_hold_the_papers_workers():
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", SLURM.read_text(), re.MULTILINE))
    gpus = int(options["gpus-per-node"])
    assert int(options["nodes"]) * gpus == PAPER.num_workers
    assert int(options["cpus-per-task"]) == gpus * PAPER.cpus_per_worker


@pytest.mark.parametrize("nodes", [1, 4])
def test_the_slurm_script_starts_the_cluster_and_then_the_stages(tmp_path, nodes):
    code, said, calls = run_slurm(tmp_path, nodes)
    assert code == 0, said
    resources = "--num-cpus=32 --num-gpus=4 --block"
    wanted = [
        "dvc repro sweep cas 10.0.0.7:20123 64",
        "ray start --head --node-ip-address=10.0.0.7 --port=20123 "
        f"--temp-dir=/tmp/maskgit-123/ray {resources}  64",
        f"timeout 600 python deploy/wait_for_nodes.py {nodes} 10.0.0.7:20123 64",
        'srun --cpus-per-task=1 sh -c mkdir -p -m 700 "$0" && test -O "$0" /tmp/maskgit-123  64',
    ]
    if nodes > 1:
        started = f"--cpus-per-task=32 ray start --address=10.0.0.7:20123 {resources}  64"
        wanted.append(f"srun --relative=1 --nodes={nodes - 1} --ntasks={nodes - 1} {started}")
    assert sorted(calls) == sorted(wanted)


@pytest.mark.parametrize("failing", ["ray", "timeout", "srun"])
def test_the_slurm_script_ends_where_its_cluster_does(tmp_path, failing):
    """Within a minute: the job's GPUs wait with it."""
    code, said, calls = run_slurm(tmp_path, 1, failing)
    assert code and not any(call.startswith("dvc") for call in calls)
    ended = "Ray's head at 10.0.0.7:20123 has ended, or not all of 1 nodes had joined"
    assert (ended if failing != "srun" else "/tmp/maskgit-123 cannot be made") in said


def run_slurm(tmp_path, nodes, failing=""):
    """Run the script with commands in the place of SLURM's, Ray's and DVC's that note how they are
    called; returns its exit status, what it said, and the calls."""
    (tmp_path / "deploy").mkdir()
    bin_folder = tmp_path / ".venv/bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "activate").write_text(f'PATH="{bin_folder}:$PATH"\n')
    for name in ("ray", "srun", "dvc", "timeout"):
        (bin_folder / name).write_text(
            f'#!/bin/sh\necho "{name} $* $RAY_ADDRESS ${{#RAY_AUTH_TOKEN}}" >> "{tmp_path}/calls"\n'
            f"{DOES.get(name, '') if name != failing else 'exit 1'}\n"
        )
        (bin_folder / name).chmod(0o755)
    (bin_folder / "hostname").write_text("#!/bin/sh\necho 10.0.0.7 172.17.0.1\n")
    (bin_folder / "hostname").chmod(0o755)
    environment = {"SLURM_SUBMIT_DIR": tmp_path, "SLURM_JOB_ID": "123", "SLURM_NNODES": nodes}
    environment |= {"SLURM_CPUS_PER_TASK": 32, "SLURM_GPUS_PER_NODE": "h100:4"}
    environment |= {"PATH": os.environ["PATH"], "CALLS": 3 if nodes == 1 else 4}
    with open(tmp_path / "said", "w") as said:
        script = subprocess.Popen(
            ["bash", SLURM, "sweep", "cas"],
            env={k: str(v) for k, v in environment.items()},
            stderr=said,
            start_new_session=True,
        )
        code = script.wait(timeout=60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(script.pid, signal.SIGKILL)  # SLURM ends what a job has left
    calls = (tmp_path / "calls").read_text().splitlines()
    return code, (tmp_path / "said").read_text(), calls


def test_it_waits_until_all_nodes_have_joined(monkeypatch):
    joined = iter([[True], [True, False], [True, True, False], [True, True, True]])
    tries = iter([ConnectionError, ConnectionError, None])
    state = SimpleNamespace(ready=False, slept=0)

    def init(**_):
        if error := next(tries):
            raise error
        state.ready = True

    def sleep(seconds):
        state.slept += 1

    monkeypatch.setattr(ray, "is_initialized", lambda: state.ready)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": alive} for alive in next(joined)])
    monkeypatch.setattr(wait_for_nodes, "time", SimpleNamespace(sleep=sleep))
    wait_for_nodes.main(3)
    assert state.slept == 2 + 3
