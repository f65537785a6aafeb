#!/usr/bin/env bash
# A Slurm of one node in a folder: slurm.sh start FOLDER [CPUS], slurm.sh stop FOLDER.
# Nothing of the system is read or written: key, sockets, ports, state and logs are the folder's own.
# After start, `export SLURM_CONF=FOLDER/slurm.conf` lets sinfo, srun and scancel speak to it.
set -euo pipefail
verb=$1 folder=$(realpath -m "$2") cpus=${3:-2}
export SLURM_CONF="$folder/slurm.conf"
PATH="$PATH:/usr/sbin"

stop() {  # its jobs, then its daemons: by the process ids they wrote, never by name
  scancel --user "$(id -un)" 2>/dev/null || true
  for _ in $(seq 150); do [ -z "$(squeue --noheader 2>/dev/null)" ] && break; sleep 0.1; done
  for name in slurmd slurmctld munged; do
    pid=$(cat "$folder/$name.pid" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || continue 2; sleep 0.1; done
    kill -9 "$pid"
  done
}

start() {
  mkdir -p "$folder"/{state,spool}
  chmod 755 "$folder"
  read -r controller node < <(python3 -c '
import socket
pair = [socket.socket() for _ in range(2)]
for one in pair: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in pair))')
  host=$(hostname -s)
  head -c 1024 /dev/urandom > "$folder/munge.key"
  chmod 400 "$folder/munge.key"
  cat > "$SLURM_CONF" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$node
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
END
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
  slurmctld
  slurmd -N "$host" 2>> "$folder/slurmd.log"
  for _ in $(seq 300); do
    [ "$(sinfo -h -o %T 2>/dev/null)" = idle ] && return
    sleep 0.2
  done
  echo "slurm.sh: the node is not idle after 60 s: $(sinfo -h -o '%T %E' 2>&1); see $folder/*.log" >&2
  stop
  exit 1
}

"$verb"
