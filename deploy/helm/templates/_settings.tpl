{{/* What the programs read from their environment: see docs/reference/settings.md. */}}

{{/* The data of the ConfigMap. */}}
{{- define "tide-relay.config" -}}
{{- $config := .Values.config -}}
RELAY_GROUP_ID: {{ $config.relayGroupId | quote }}
RELAY_LOG_FORMAT: {{ $config.logFormat | quote }}
RELAY_LOG_LEVEL: {{ $config.logLevel | quote }}
RELAY_DISCOVERY_INTERVAL: {{ $config.discoveryInterval | quote }}
RELAY_MAINTENANCE_INTERVAL: {{ $config.maintenanceInterval | quote }}
RELAY_CONNECT_TIMEOUT: {{ $config.connectTimeout | quote }}
RELAY_STATEMENT_TIMEOUT: {{ $config.statementTimeout | quote }}
RELAY_SECRET_VARIABLES: {{ join "," $config.secretVariables | default "none" | quote }}
RELAY_SECRET_FOLDERS: {{ join "," $config.secretFolders | default "none" | quote }}
RELAY_SINK_FOLDERS: {{ join "," $config.sinkFolders | default "none" | quote }}
RELAY_SOURCE_FOLDERS: {{ join "," $config.sourceFolders | default "none" | quote }}
RELAY_AMBIENT_CREDENTIALS: {{ $config.ambientCredentials | quote }}
RELAY_JOB_LEASE: {{ $config.jobLease | quote }}
RELAY_JOB_HTTP_HOSTS: {{ join "," $config.jobHttpHosts | default "none" | quote }}
RELAY_WORKER_SHUTDOWN_TIMEOUT: {{ printf "%ds" (int .Values.drainTimeoutSeconds) | quote }}
RELAY_METRICS_ADDR: {{ printf "%s:9090" $config.listenHost | quote }}
RELAY_WORKER_METRICS_ADDR: {{ printf "%s:9191" $config.listenHost | quote }}
RELAY_API_ADDR: {{ printf "%s:8080" $config.listenHost | quote }}
RELAY_API_METRICS_ADDR: {{ printf "%s:9292" $config.listenHost | quote }}
RELAY_ADMIN_ADDR: {{ printf "%s:8090" $config.listenHost | quote }}
{{- end }}

{{/* The data of the Secret: URLs that the values hold. Empty when Secrets exist for them. Takes root. */}}
{{- define "tide-relay.secret" -}}
{{- with .Values.postgres.url }}
postgres-url: {{ . | b64enc | quote }}
{{- end }}
{{- with .Values.broker.url }}
broker-url: {{ . | b64enc | quote }}
{{- end }}
{{- end }}

{{/* Whether a component (api, migrate) has a database role of its own: "true" or "". */}}
{{- define "tide-relay.hasOwnPostgres" -}}
{{- $own := default dict .values.postgres -}}
{{- if or $own.url $own.existingSecret }}true{{ end -}}
{{- end }}

{{/* The URL, if the values hold it: of the component's own database role, else of everybody's. */}}
{{- define "tide-relay.postgresUrl" -}}
{{- if include "tide-relay.hasOwnPostgres" . -}}{{ .values.postgres.url }}{{- else -}}{{ .root.Values.postgres.url }}{{- end -}}
{{- end }}

{{/* Where a pod finds the URL of PostgreSQL. A component with a URL of its own has a Secret of its own; and so has the
     migrate job always, because it runs before everything else of the release is there. */}}
{{- define "tide-relay.postgresRef" -}}
{{- $own := include "tide-relay.hasOwnPostgres" . -}}
{{- $postgres := ternary (default dict .values.postgres) .root.Values.postgres (ne $own "") -}}
{{- if $postgres.existingSecret -}}
name: {{ $postgres.existingSecret }}
key: {{ $postgres.secretKey }}
{{- else if or $own (eq .component "migrate") -}}
name: {{ include "tide-relay.component.name" . }}
key: postgres-url
{{- else -}}
name: {{ include "tide-relay.named" (list .root "") }}
key: postgres-url
{{- end -}}
{{- end }}

{{- define "tide-relay.brokerRef" -}}
{{- $broker := .root.Values.broker -}}
{{- if $broker.existingSecret -}}
name: {{ $broker.existingSecret }}
key: {{ $broker.secretKey }}
{{- else -}}
name: {{ include "tide-relay.named" (list .root "") }}
key: broker-url
{{- end -}}
{{- end }}

{{/* The environment of one container. Without the ConfigMap where that is not there yet: the migrate job. */}}
{{- define "tide-relay.env" -}}
- name: RELAY_POSTGRES_URL
  valueFrom:
    secretKeyRef:
      {{- include "tide-relay.postgresRef" . | nindent 6 }}
{{- if has .component (list "scheduler" "workers" "doctor") }}
- name: RELAY_BROKER_URL
  valueFrom:
    secretKeyRef:
      {{- include "tide-relay.brokerRef" . | nindent 6 }}
{{- end }}
{{- if eq .component "workers" }}
- name: RELAY_WORKER_PROCESSES
  value: {{ .values.processes | int | quote }}
- name: RELAY_WORKER_THREADS
  value: {{ .values.threads | int | quote }}
- name: PROMETHEUS_MULTIPROC_DIR
  value: /metrics
{{- end }}
{{- if include "tide-relay.runsJobs" . }}
- name: RELAY_JOB_MODULES
  value: {{ join "," .values.jobs.modules | default "none" | quote }}
- name: RELAY_JOB_QUEUES
  value: {{ join "," .values.jobs.queues | default "none" | quote }}
- name: RELAY_JOB_SLOTS
  value: {{ .values.jobs.slots | int | quote }}
- name: RELAY_JOB_THREADS
  value: {{ .values.jobs.threads | int | quote }}
- name: RELAY_JOB_GRACE
  value: {{ printf "%ds" (int .values.jobs.graceSeconds) | quote }}
{{- end }}
{{- if and (eq .component "api") (include "tide-relay.hasAdmin" .root) }}
{{- $admin := .values.admin }}
{{- range $name, $key := dict "RELAY_API_AUTH_TOKENS" $admin.secretKey "RELAY_API_READ_ONLY_AUTH_TOKENS" $admin.readOnlySecretKey }}
{{- if $key }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $admin.existingSecret }}
      key: {{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq .component "migrate" }}
{{- range $name, $value := include "tide-relay.config" .root | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tide-relay.envFrom" -}}
{{- if ne .component "migrate" }}
- configMapRef:
    name: {{ include "tide-relay.named" (list .root "") }}
{{- end }}
{{- with .values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end }}
