#!/usr/bin/env bash
# Prints a training on several hosts as Kubernetes takes it: an indexed Job, a pod for each host,
# and the headless service by which the pods find each other.
#
#     NAME=… IMAGE=… HOSTS=… CLAIM=… [GPUS=…] launch/kubernetes/job.sh \
#         --config … --workdir /data/… [flags of recon_ad.train] | kubectl apply -f -
#
# NAME   of Job and service
# IMAGE  a container image with this package and its configs, in the folder where it starts
# HOSTS  number of pods
# CLAIM  a PersistentVolumeClaim that all pods may mount at once (ReadWriteMany): it is /data, for
#        the images and, always, for the workdir
# GPUS   of each pod; 0 or unset: none
# CPUS   of each pod, 4 where unset
# MEMORY of each pod, as Kubernetes writes it, 32Gi where unset
# RUN_AS user and group that the container runs as, 1000 where unset; CLAIM has to let them write
#
# A pod that is evicted saves a checkpoint on all hosts; all end with exit status 75, and are
# started again without counting it. Where one dies the others end within a minute, and all are
# started again, at most 10 times for each host.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

: "${NAME:?is not set: the name of Job and service}"
: "${IMAGE:?is not set: the container image}"
: "${HOSTS:?is not set: the number of pods}"
: "${CLAIM:?is not set: a PersistentVolumeClaim that all pods may mount}"
[[ $HOSTS =~ ^[1-9][0-9]*$ ]] || fail "HOSTS is $HOSTS: give a number from 1"
[[ ${GPUS:=0} =~ ^[0-9]+$ ]] || fail "GPUS is $GPUS: give a number"
[[ ${CPUS:=4} =~ ^[1-9][0-9]*$ ]] || fail "CPUS is $CPUS: give a number from 1"
[[ ${MEMORY:=32Gi} =~ ^[1-9][0-9]*[KMGT]i$ ]] || fail "MEMORY is $MEMORY: give it as 32Gi"
[[ ${RUN_AS:=1000} =~ ^[1-9][0-9]*$ ]] || fail "RUN_AS is $RUN_AS: give a user's number that is not root's, 0"
[[ $NAME =~ ^[a-z]([a-z0-9-]{0,50}[a-z0-9])?$ ]] || fail "NAME is $NAME: give small letters, digits and -, at most 52"
[[ $# -gt 0 ]] || fail "flags of recon_ad.train are missing: --config … --workdir /data/…"

quoted() { # as a string of YAML
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

flags=""
for flag in "$@"; do
  [[ $flag != *[[:cntrl:]]* ]] || fail "a flag has a line break or another control character: $(printf '%q' "$flag")"
  flags+=", $(quoted "$flag")"
done

# One pod alone is no distributed run.
if ((HOSTS > 1)); then
  environment="
            - {name: JAX_COORDINATOR_ADDRESS, value: \"$NAME-0.$NAME:8476\"}
            - {name: JAX_NUM_PROCESSES, value: \"$HOSTS\"}
            - name: JAX_PROCESS_ID
              valueFrom:
                fieldRef:
                  fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']"
else
  environment=" []"
fi

cat <<YAML
apiVersion: v1
kind: Service
metadata:
  name: $NAME
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    batch.kubernetes.io/job-name: $NAME
---
apiVersion: batch/v1
kind: Job
metadata:
  name: $NAME
spec:
  completionMode: Indexed
  completions: $HOSTS
  parallelism: $HOSTS
  backoffLimit: $((10 * HOSTS))
  podFailurePolicy:
    rules:
      - action: FailJob # bad flags, config or images: started again it would end so again
        onExitCodes: {operator: In, values: [2]}
      - action: Ignore
        onExitCodes: {operator: In, values: [75]}
      - action: Ignore
        onPodConditions:
          - {type: DisruptionTarget, status: "True"}
  template:
    spec:
      subdomain: $NAME
      restartPolicy: Never
      terminationGracePeriodSeconds: 120 # for the checkpoint
      automountServiceAccountToken: false # the training asks nothing of the cluster
      securityContext:
        runAsNonRoot: true
        runAsUser: $RUN_AS
        runAsGroup: $RUN_AS
        fsGroup: $RUN_AS
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: train
          image: $(quoted "$IMAGE")
          command: ["python", "-m", "recon_ad.train"$flags]
          env:$environment
          ports:
            - containerPort: 8476
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
          resources:
            requests: {cpu: $CPUS, memory: $MEMORY}
            limits: {memory: $MEMORY, nvidia.com/gpu: $GPUS}
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: memory, mountPath: /dev/shm}
      volumes:
        - name: data
          persistentVolumeClaim: {claimName: $(quoted "$CLAIM")}
        - name: memory # NCCL needs more of it than a container has
          emptyDir: {medium: Memory}
YAML
