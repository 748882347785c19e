{{/* The pod of any component. Besides the usual dict `c` it takes: args (the whole command line), port (of
     /health and /ready; none for jobs), ports, restartPolicy. What the restricted pod security standard asks for is written here once, and is no value. */}}

{{- define "tide-relay.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.security.runAsUser }}
runAsUser: {{ int . }}
{{- end }}
{{- with .Values.security.runAsGroup }}
runAsGroup: {{ int . }}
{{- end }}
{{- with .Values.security.fsGroup }}
fsGroup: {{ int . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "tide-relay.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Containers of the values, each with our securityContext unless it names one. */}}
{{- define "tide-relay.containers" -}}
{{- $ours := include "tide-relay.containerSecurityContext" . | fromYaml -}}
{{- range . }}
- {{ merge (deepCopy .) (dict "securityContext" (ternary dict $ours (hasKey . "securityContext"))) | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}

{{- define "tide-relay.affinity" -}}
{{- if .values.affinity -}}
{{ toYaml .values.affinity }}
{{- else if eq (default "none" .values.antiAffinity) "soft" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "tide-relay.selectorLabels" . | nindent 12 }}
{{- else if eq (default "none" .values.antiAffinity) "hard" -}}
podAntiAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "tide-relay.selectorLabels" . | nindent 10 }}
{{- end -}}
{{- end }}

{{- define "tide-relay.topologySpread" -}}
{{- $selector := dict "labelSelector" (dict "matchLabels" (include "tide-relay.selectorLabels" . | fromYaml)) -}}
{{- range .values.topologySpreadConstraints }}
- {{ merge (deepCopy .) (ternary dict $selector (hasKey . "labelSelector")) | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}

{{- define "tide-relay.probes" -}}
{{- $paths := dict "startup" "/health" "liveness" "/health" "readiness" "/ready" -}}
{{- range $kind := list "startup" "liveness" "readiness" }}
{{- $probe := index $.values.probes $kind }}
{{ $kind }}Probe:
  httpGet:
    path: {{ index $paths $kind }}
    port: metrics
  periodSeconds: {{ int $probe.periodSeconds }}
  timeoutSeconds: {{ int $probe.timeoutSeconds }}
  failureThreshold: {{ int $probe.failureThreshold }}
{{- end }}
{{- end }}

{{- define "tide-relay.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if eq .component "workers" }}
- name: metrics
  mountPath: /metrics
{{- end }}
{{- if has .component (list "workers" "api" "doctor") }}
{{- range $index, $secret := .root.Values.secretFiles }}
- name: secret-{{ $index }}
  mountPath: /secrets/{{ $secret }}
  readOnly: true
{{- end }}
{{- end }}
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tide-relay.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .root.Values.tmpSizeLimit | quote }}
{{- if eq .component "workers" }}
- name: metrics
  emptyDir:
    medium: Memory
    sizeLimit: {{ .values.metricsSizeLimit | quote }}
{{- end }}
{{- if has .component (list "workers" "api" "doctor") }}
{{- range $index, $secret := .root.Values.secretFiles }}
- name: secret-{{ $index }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Pods are replaced when what they read at their start has changed. */}}
{{- define "tide-relay.podMetadata" -}}
{{- $annotations := dict -}}
{{- if ne .component "migrate" -}}
{{- $_ := set $annotations "checksum/config" (include "tide-relay.config" .root | sha256sum) -}}
{{- $urls := print (include "tide-relay.postgresUrl" .) (ternary .root.Values.broker.url "" (ne .component "api")) -}}
{{- if $urls }}{{ $_ := set $annotations "checksum/secret" (sha256sum $urls) }}{{ end -}}
{{- end -}}
{{- with merge $annotations (default dict .values.podAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
labels:
  {{- merge (include "tide-relay.selectorLabels" . | fromYaml) (default dict .values.podLabels) | toYaml | nindent 2 }}
{{- end }}

{{/* The migrate job runs before the release's ServiceAccount is there. */}}
{{- define "tide-relay.podServiceAccount" -}}
{{- if and (eq .component "migrate") .root.Values.serviceAccount.create -}}
{{- include "tide-relay.component.name" . -}}
{{- else -}}
{{- include "tide-relay.serviceAccountName" .root -}}
{{- end -}}
{{- end }}

{{/* Batches and jobs end side by side. Jobs that do not end in their grace are cancelled then, and handed back. */}}
{{- define "tide-relay.gracePeriod" -}}
{{- $drain := int .root.Values.drainTimeoutSeconds -}}
{{- if include "tide-relay.runsJobs" . -}}
{{- add (max $drain (int .values.jobs.graceSeconds)) 30 -}}
{{- else -}}
{{- add $drain 15 -}}
{{- end -}}
{{- end }}

{{- define "tide-relay.podSpec" -}}
serviceAccountName: {{ include "tide-relay.podServiceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "tide-relay.podSecurityContext" .root | nindent 2 }}
{{- if .port }}
terminationGracePeriodSeconds: {{ include "tide-relay.gracePeriod" . }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "tide-relay.affinity" . }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- include "tide-relay.topologySpread" $ | trim | nindent 2 }}
{{- end }}
{{- with .values.initContainers }}
initContainers:
  {{- include "tide-relay.containers" . | trim | nindent 2 }}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ include "tide-relay.image" . | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [{{ first .args }}]
    {{- with rest .args }}
    args:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    env:
      {{- include "tide-relay.env" . | nindent 6 }}
    {{- with include "tide-relay.envFrom" . | trim }}
    envFrom:
      {{- . | nindent 6 }}
    {{- end }}
    {{- with .ports }}
    ports:
      {{- range $name, $port := . }}
      - name: {{ $name }}
        containerPort: {{ $port }}
        protocol: TCP
      {{- end }}
    {{- end }}
    {{- if .port }}
    {{- include "tide-relay.probes" . | trim | nindent 4 }}
    {{- end }}
    {{- with .preStop }}
    lifecycle:
      preStop:
        exec:
          command:
            {{- toYaml . | nindent 12 }}
    {{- end }}
    {{- with .values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "tide-relay.containerSecurityContext" . | nindent 6 }}
    volumeMounts:
      {{- include "tide-relay.volumeMounts" . | nindent 6 }}
  {{- with .values.extraContainers }}
  {{- include "tide-relay.containers" . | trim | nindent 2 }}
  {{- end }}
volumes:
  {{- include "tide-relay.volumes" . | nindent 2 }}
{{- end }}

{{/* The spec of a Deployment. */}}
{{- define "tide-relay.deploymentSpec" -}}
{{- if eq (dig "autoscaling" "kind" "none" .values) "none" }}
replicas: {{ int .values.replicas }}
{{- end }}
revisionHistoryLimit: 5
strategy:
  type: RollingUpdate
  rollingUpdate:
    {{- toYaml .values.rollingUpdate | nindent 4 }}
selector:
  matchLabels:
    {{- include "tide-relay.selectorLabels" . | nindent 4 }}
template:
  metadata:
    {{- include "tide-relay.podMetadata" . | trim | nindent 4 }}
  spec:
    {{- include "tide-relay.podSpec" . | nindent 4 }}
{{- end }}

{{/* metadata of an object of one component, under its name. */}}
{{- define "tide-relay.metadata" -}}
name: {{ include "tide-relay.component.name" . }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "tide-relay.labels" . | nindent 2 }}
{{- end }}
