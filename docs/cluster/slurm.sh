#!/bin/bash
#SBATCH --job-name=fedunlearn
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --no-kill                # a machine that is lost does not end the job: the run goes on without it
#SBATCH --requeue                # but the job may begin anew: it goes on where it was
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120      # two minutes before its time is over: the run is stopped and comes back
# One run on all machines of a job, from the folder of the checkout:
#   sbatch docs/cluster/slurm.sh SCENARIO OUT [further options of simulate]
# OUT is on storage that outlives the job. Only the first machine needs to see it.
set -euo pipefail

scenario=$1 out=$2
shift 2
python=${PYTHON:-$PWD/.venv/bin/python}     # the same path on every machine, and the same checkout
ray=$(dirname "$python")/ray
port=${RAY_PORT:-6379}
export RAY_USAGE_STATS_ENABLED=0

mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${machines[0]}                        # this one: a batch script runs on the first
address_of() { getent ahostsv4 "$1" | awk '{ print $1; exit }'; }
address=$(address_of "$first"):$port

# Ray on one machine, in the background, until it is ended.
start() {
    local machine=$1
    shift
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$machine" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        "$ray" start --block --node-ip-address="$(address_of "$machine")" \
        --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" "$@" &
}

if [[ -e $out/DONE ]]; then
    echo "$out is finished"
    exit 0
fi
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
start "$first" --head --port="$port" --include-dashboard=false
until "$ray" health-check --address "$address" >/dev/null 2>&1; do
    kill -0 "$!" || { echo "Ray did not start on $first" >&2; exit 1; }
    sleep 1
done
for machine in "${machines[@]:1}"; do
    start "$machine" --address="$address"
done

resume=()
[[ -f $out/work/about.json ]] && resume=(--resume)
"$python" -m fedunlearn simulate "$scenario" --set "engine.address=$address" --out "$out" ${resume[@]+"${resume[@]}"} "$@" &
driver=$!
trap 'kill -TERM "$driver"' TERM
while :; do                                 # a signal ends the first wait, not the run
    code=0
    wait "$driver" || code=$?
    kill -0 "$driver" 2>/dev/null || break
done

# 1: the cluster was lost, or a hospital failed; 143: time is over. 2 would be the same again.
if ((code == 1 || code == 143)) && ((${SLURM_RESTART_COUNT:-0} < 5)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
