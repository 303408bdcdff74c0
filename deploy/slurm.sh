#!/usr/bin/env bash
# The DAG, or the stages named, as a job of SLURM. docs/cluster.md goes through it.
#
#   sbatch deploy/slurm.sh [stage ...]
#
# To be submitted from the project's folder, which every node sees under the same path. To change: the
# lines below. `ray.num_workers` (`sweep.workers_per_trial`, `cas.workers_per_classifier`) of params.yaml
# may be as many as there are GPUs in all; CPUs of a node: its GPUs times ray.cpus_per_worker.
#SBATCH --job-name=maskgit
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --exclusive
#SBATCH --mem=256G
#SBATCH --time=2-00:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --output=maskgit-%j.log

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit it with sbatch}"
# shellcheck source=/dev/null
source "${VENV:-.venv}/bin/activate"

# Whoever has the token runs code as you: one for this job, which srun passes on in the environment.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token MLFLOW_DISABLE_TELEMETRY=true

# The first node runs this script and is the head. Nobody else's job is on these nodes: the ports
# of Ray's workers are the same for all. Its folder, open to all, lies in one that is yours alone.
read -r ip _ <<<"$(hostname --all-ip-addresses)"
port=$((20000 + SLURM_JOB_ID % 10000))
own="/tmp/maskgit-$SLURM_JOB_ID"
# shellcheck disable=SC2016
srun --cpus-per-task=1 sh -c 'mkdir -p -m 700 "$0" && test -O "$0"' "$own" || {
    echo "$own cannot be made, or is not yours, on one of the nodes" >&2
    exit 1
}
gpus=${SLURM_GPUS_PER_NODE:-0} # 4, or with their kind before it
resources=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${gpus##*:}")

ray start --head --node-ip-address="$ip" --port="$port" --temp-dir="$own/ray" \
    "${resources[@]}" --block &
head=$!
if ((SLURM_NNODES > 1)); then
    srun --relative=1 --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) \
        --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        ray start --address="$ip:$port" "${resources[@]}" --block &
fi

export RAY_ADDRESS="$ip:$port"
timeout 600 python deploy/wait_for_nodes.py "$SLURM_NNODES" &
if ! wait -n "$head" $! || ! kill -0 "$head"; then
    echo "Ray's head at $RAY_ADDRESS has ended, or not all of $SLURM_NNODES nodes had joined it" \
        "after 10 minutes" >&2
    exit 1
fi

# Two minutes before its time is over the job is queued again, and goes on from its checkpoints.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
dvc repro "$@" &
wait $!
