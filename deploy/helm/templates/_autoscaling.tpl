{{/* How workers are scaled: on the lag of the pipelines in their direction, and on drains that wait in their queues.
     Both are served by the schedulers, so they are there with no worker at all. */}}

{{/* Queues of a group, as a YAML list; none named are all. */}}
{{- define "tide-relay.queues" -}}
{{- default (list "tide.forward" "tide.reverse" "tide.maintenance") .values.queues | toYaml -}}
{{- end }}

{{/* Directions that these queues carry, as a YAML list; empty for maintenance alone. */}}
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
{{- if eq (len $values) 1 -}}
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

{{/* The selector of an external metric: (list c label values). */}}
{{- define "tide-relay.metricSelector" -}}
matchLabels:
  {{- include "tide-relay.metricLabels" (index . 0) | nindent 2 }}
matchExpressions:
  - key: {{ index . 1 }}
    operator: In
    values:
      {{- index . 2 | toYaml | nindent 6 }}
{{- end }}
