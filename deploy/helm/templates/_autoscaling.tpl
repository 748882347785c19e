{{/* How workers are scaled: on the lag of the pipelines in their direction, on the wait of the oldest due job, and on drains
     that wait in their queues. All are served by the schedulers, so they are there with no worker at all. */}}

{{/* Queues of a group, as a YAML list; none named are all. */}}
{{- define "tide-relay.queues" -}}
{{- $all := list "tide.forward" "tide.reverse" "tide.streams" "tide.maintenance" -}}
{{- if include "tide-relay.runsJobs" . }}{{ $all = append $all "tide.jobs" }}{{ end -}}
{{- default $all .values.queues | toYaml -}}
{{- end }}

{{/* Directions that these queues carry and that have a lag, as a YAML list. */}}
{{- define "tide-relay.directions" -}}
{{- $directions := list -}}
{{- range include "tide-relay.queues" . | fromYamlArray -}}
{{- $name := trimPrefix "tide." . -}}
{{- if has $name (list "forward" "reverse") -}}{{- $directions = append $directions $name -}}{{- end -}}
{{- end -}}
{{- toYaml $directions -}}
{{- end }}

{{/* Labels of the series of this release. */}}
{{- define "tide-relay.metricLabels" -}}
{{- $scheduler := include "tide-relay.named" (list .root "scheduler") -}}
{{- default (dict "namespace" .root.Release.Namespace "service" $scheduler) .values.autoscaling.metricLabels | toYaml -}}
{{- end }}

{{/* (list c label values): the inside of a PromQL selector. */}}
{{- define "tide-relay.matchers" -}}
{{- $values := index . 2 -}}
{{- $matchers := list -}}
{{- if not $values -}}
{{- else if eq (len $values) 1 -}}
{{- $matchers = append $matchers (printf "%s=%s" (index . 1) (first $values | quote)) -}}
{{- else -}}
{{- $matchers = append $matchers (printf "%s=~%s" (index . 1) (join "|" $values | quote)) -}}
{{- end -}}
{{- range $name, $value := include "tide-relay.metricLabels" (index . 0) | fromYaml -}}
{{- $matchers = append $matchers (printf "%s=%s" $name ($value | quote)) -}}
{{- end -}}
{{- join "," $matchers -}}
{{- end }}

{{- define "tide-relay.waitingQuery" -}}
sum(tide_relay_drains_waiting{ {{- include "tide-relay.matchers" (list . "queue" (include "tide-relay.queues" . | fromYamlArray)) -}} })
{{- end }}

{{/* Lag counts only while drains wait: one that is not for want of workers, because a sink is away, say, is not fixed by
     more of them. */}}
{{- define "tide-relay.lagQuery" -}}
max(tide_relay_lag_seconds{ {{- include "tide-relay.matchers" (list . "direction" (include "tide-relay.directions" . | fromYamlArray)) -}} }) and on() ({{ include "tide-relay.waitingQuery" . }} > 0)
{{- end }}

{{/* The queues of jobs that a group is given by name, as a YAML list; none, if it has those of its handlers, or all. */}}
{{- define "tide-relay.jobQueues" -}}
{{- without .values.jobs.queues "*" | toYaml -}}
{{- end }}

{{/* In the same way: jobs that wait for something else than a worker, such as their queue's limit, leave no drain waiting. */}}
{{- define "tide-relay.jobQuery" -}}
max(tide_job_oldest_seconds{ {{- include "tide-relay.matchers" (list . "queue" (include "tide-relay.jobQueues" . | fromYamlArray)) -}} }) and on() ({{ include "tide-relay.waitingQuery" . }} > 0)
{{- end }}

{{/* What a group is scaled on: the keys of its values that count, as a YAML list. */}}
{{- define "tide-relay.scaledOn" -}}
{{- $scaling := .values.autoscaling -}}
{{- $on := list -}}
{{- if and $scaling.lagSeconds (include "tide-relay.directions" . | fromYamlArray) }}{{ $on = append $on "lagSeconds" }}{{ end -}}
{{- if and $scaling.jobSeconds (include "tide-relay.runsJobs" .) }}{{ $on = append $on "jobSeconds" }}{{ end -}}
{{- if $scaling.drainsWaiting }}{{ $on = append $on "drainsWaiting" }}{{ end -}}
{{- if $scaling.cpuUtilization }}{{ $on = append $on "cpuUtilization" }}{{ end -}}
{{- toYaml $on -}}
{{- end }}

{{/* The selector of an external metric: (list c label values). */}}
{{- define "tide-relay.metricSelector" -}}
matchLabels:
  {{- include "tide-relay.metricLabels" (index . 0) | nindent 2 }}
{{- if index . 2 }}
matchExpressions:
  - key: {{ index . 1 }}
    operator: In
    values:
      {{- index . 2 | toYaml | nindent 6 }}
{{- end }}
{{- end }}
