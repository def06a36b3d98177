#!/usr/bin/env bash
# Print the Kubernetes manifest of a training on several hosts: an indexed Job with one pod per host,
# and the headless service through which the pods find each other.
#
#     NAME=… IMAGE=… HOSTS=… CLAIM=… [GPUS=…] launch/kubernetes/job.sh \
#         --config … --workdir /data/… [flags of recon_ad.train] | kubectl apply -f -
#
# NAME   name of the Job and the service
# IMAGE  container image with this package and its configs, in the folder where it starts
# HOSTS  number of pods
# CLAIM  PersistentVolumeClaim that all pods can mount at once (ReadWriteMany). It is mounted at
#        /data, for the images and always for the workdir
# GPUS   GPUs per pod; none by default
# CPUS   CPUs per pod; 4 by default
# MEMORY memory per pod in Kubernetes' notation; 32Gi by default
# RUN_AS user and group of the container, which need write access to CLAIM; 1000 by default
#
# If a pod is evicted, all hosts save a checkpoint and end with exit status 75. They are started again
# without counting it. If a pod dies, the others end within a minute and all are started again, at
# most 10 times per host.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

: "${NAME:?is not set: the name of the Job and the service}"
: "${IMAGE:?is not set: the container image}"
: "${HOSTS:?is not set: the number of pods}"
: "${CLAIM:?is not set: a PersistentVolumeClaim that all pods can mount}"
[[ $HOSTS =~ ^[1-9][0-9]*$ ]] || fail "HOSTS is $HOSTS: give a whole number of 1 or more"
[[ ${GPUS:=0} =~ ^[0-9]+$ ]] || fail "GPUS is $GPUS: give a whole number"
[[ ${CPUS:=4} =~ ^[1-9][0-9]*$ ]] || fail "CPUS is $CPUS: give a whole number of 1 or more"
[[ ${MEMORY:=32Gi} =~ ^[1-9][0-9]*[KMGT]i$ ]] || fail "MEMORY is $MEMORY: give a value such as 32Gi"
[[ ${RUN_AS:=1000} =~ ^[1-9][0-9]*$ ]] || fail "RUN_AS is $RUN_AS: give a numeric user id other than 0 (root)"
[[ $NAME =~ ^[a-z]([a-z0-9-]{0,50}[a-z0-9])?$ ]] || fail "NAME is $NAME: give at most 52 lower-case letters, digits and hyphens, starting with a letter"
[[ $# -gt 0 ]] || fail "flags of recon_ad.train are missing: --config … --workdir /data/…"

quoted() { # as a YAML string
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

flags=""
for flag in "$@"; do
  [[ $flag != *[[:cntrl:]]* ]] || fail "a flag contains a line break or another control character: $(printf '%q' "$flag")"
  flags+=", $(quoted "$flag")"
done

# A single pod is not a distributed run.
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
      - action: FailJob # bad flags, config or images: a restart would fail in the same way
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
      automountServiceAccountToken: false # the training does not use the cluster's API
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
        - name: memory # NCCL needs more shared memory than a container has by default
          emptyDir: {medium: Memory}
YAML
