#!/usr/bin/env bash
# Run the DAG, or the named stages, as a SLURM job. docs/cluster.md explains the steps.
#
#   sbatch deploy/slurm.sh [stage ...]
#
# Submit the script from the project's folder, which every node must see at the same path. Change the lines
# below: request as many GPUs as a training has workers (`ray.num_workers`, `sweep.workers_per_trial`,
# `cas.workers_per_classifier` in params.yaml), and per node ray.cpus_per_worker CPUs for each GPU.
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

# Anyone with the token can run code as you. This job has its own token, which srun passes to all nodes.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token MLFLOW_DISABLE_TELEMETRY=true

# The first node runs this script and Ray's head. All Ray clusters use the same worker ports, so other
# jobs must not run on these nodes. Ray's folder is open to all users, so its parent is private.
read -r ip _ <<<"$(hostname --all-ip-addresses)"
port=$((20000 + SLURM_JOB_ID % 10000))
own="/tmp/maskgit-$SLURM_JOB_ID"
# shellcheck disable=SC2016
srun --cpus-per-task=1 sh -c 'mkdir -p -m 700 "$0" && test -O "$0"' "$own" || {
    echo "$own: cannot be created on a node, or belongs to another user; delete it there" >&2
    exit 1
}
gpus=${SLURM_GPUS_PER_NODE:-0} # a number, or TYPE:NUMBER
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
    echo "Ray's head at $RAY_ADDRESS stopped, or some of $SLURM_NNODES nodes did not join" \
        "within 10 minutes; read the log above" >&2
    exit 1
fi

# Two minutes before its time limit, the job is requeued; it later resumes from its checkpoints.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
dvc repro "$@" &
wait $!
