{{/* What several components have in the same way. Each takes the dict `c` of _helpers.tpl. */}}

{{- define "tide-relay.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "tide-relay.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready does no work: it must not hold up who drains its node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "tide-relay.selectorLabels" . | nindent 6 }}
{{- end }}

{{/* Where Prometheus finds the pods: one address for each, so headless. Takes port, too. */}}
{{- define "tide-relay.metricsService" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "tide-relay.metadata" . | nindent 2 }}
    tide-relay/metrics: "true"
spec:
  type: ClusterIP
  clusterIP: None
  # Also of pods that are not ready: theirs are the metrics that matter most.
  publishNotReadyAddresses: true
  selector:
    {{- include "tide-relay.selectorLabels" . | nindent 4 }}
  ports:
    - name: metrics
      port: {{ .port }}
      targetPort: metrics
      protocol: TCP
{{- end }}

{{- define "tide-relay.serviceMonitor" -}}
{{- $monitor := .root.Values.monitoring.serviceMonitor -}}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "tide-relay.component.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- merge (include "tide-relay.labels" . | fromYaml) (default dict $monitor.labels) | toYaml | nindent 4 }}
spec:
  namespaceSelector:
    matchNames: [{{ .root.Release.Namespace }}]
  selector:
    matchLabels:
      {{- include "tide-relay.selectorLabels" . | nindent 6 }}
      tide-relay/metrics: "true"
  endpoints:
    - port: metrics
      path: /metrics
      interval: {{ $monitor.interval }}
      scrapeTimeout: {{ $monitor.scrapeTimeout }}
      {{- with $monitor.relabelings }}
      relabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $monitor.metricRelabelings }}
      metricRelabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}

{{/* One peer list and a port, as a rule. An empty list of peers is everybody, so it is left out: (list key peers port protocols). */}}
{{- define "tide-relay.networkRule" -}}
- ports:
    {{- $port := index . 2 }}
    {{- range index . 3 }}
    - port: {{ int $port }}
      protocol: {{ . }}
    {{- end }}
  {{- with index . 1 }}
  {{ index $ 0 }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "tide-relay.networkPolicySpec" -}}
{{- $policy := .root.Values.networkPolicy -}}
podSelector:
  matchLabels:
    {{- include "tide-relay.selectorLabels" . | nindent 4 }}
policyTypes:
  - Ingress
  {{- if $policy.egress.enabled }}
  - Egress
  {{- end }}
{{- if .port }}
ingress:
  {{- include "tide-relay.networkRule" (list "from" $policy.metricsFrom .port (list "TCP")) | nindent 2 }}
  {{- if eq .component "api" }}
  {{- include "tide-relay.networkRule" (list "from" $policy.apiFrom 8080 (list "TCP")) | nindent 2 }}
  {{- if include "tide-relay.hasAdmin" .root }}
  {{- include "tide-relay.networkRule" (list "from" $policy.adminFrom 8090 (list "TCP")) | nindent 2 }}
  {{- end }}
  {{- end }}
{{- else }}
ingress: []
{{- end }}
{{- if $policy.egress.enabled }}
egress:
  {{- include "tide-relay.networkRule" (list "to" $policy.egress.dns.to $policy.egress.dns.port (list "UDP" "TCP")) | nindent 2 }}
  {{- include "tide-relay.networkRule" (list "to" $policy.egress.postgres.to $policy.egress.postgres.port (list "TCP")) | nindent 2 }}
  {{- if has .component (list "scheduler" "workers" "doctor") }}
  {{- include "tide-relay.networkRule" (list "to" $policy.egress.broker.to $policy.egress.broker.port (list "TCP")) | nindent 2 }}
  {{- end }}
  {{- with .values.extraEgress }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "tide-relay.networkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "tide-relay.metadata" . | nindent 2 }}
spec:
  {{- include "tide-relay.networkPolicySpec" . | nindent 2 }}
{{- end }}

{{- define "tide-relay.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "tide-relay.metadata" . | nindent 2 }}
  {{- with .values.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "tide-relay.deploymentSpec" . | trim | nindent 2 }}
{{- end }}

{{/* behavior of every autoscaler: out at once, in slowly. */}}
{{- define "tide-relay.scaleDown" -}}
scaleDown:
  stabilizationWindowSeconds: {{ int .values.autoscaling.scaleDownStabilizationSeconds }}
{{- end }}

{{- define "tide-relay.cpuMetric" -}}
- type: Resource
  resource:
    name: cpu
    target:
      type: Utilization
      averageUtilization: {{ int .values.autoscaling.cpuUtilization }}
{{- end }}

{{- define "tide-relay.scaleTarget" -}}
apiVersion: apps/v1
kind: Deployment
name: {{ include "tide-relay.component.name" . }}
{{- end }}
