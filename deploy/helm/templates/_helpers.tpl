{{/* Names, labels, image. Where a template is about one component it is given a dict `c`:
     root, component (the values key), group (of workers; else empty), values (of the component or group). */}}

{{- define "tide-relay.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end }}

{{/* Not cut: "tide-relay.named" does that. A release called tide-relay needs no second tide-relay. */}}
{{- define "tide-relay.fullname" -}}
{{- $name := include "tide-relay.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if eq .Release.Name $name -}}
{{- $name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name -}}
{{- end -}}
{{- end }}

{{/* Name of an object: (list root suffix). What is no name for a Service (over 63 characters, a dot, a digit at its start) is
     made one, with a hash of it in the middle, so that names that differ stay different. */}}
{{- define "tide-relay.named" -}}
{{- $root := index . 0 -}}
{{- $suffix := index . 1 -}}
{{- $full := include "tide-relay.fullname" $root -}}
{{- $tail := ternary (print "-" $suffix) "" (ne $suffix "") -}}
{{- if or (gt (len (print $full $tail)) 63) (not (regexMatch "^[a-z][-a-z0-9]*$" $full)) -}}
{{- $hash := $full | sha256sum | trunc 8 -}}
{{- $room := sub 54 (len $tail) | int -}}
{{- $readable := $full | replace "." "-" | trimAll "-" -}}
{{- if regexMatch "^[0-9]" $readable }}{{ $readable = print "r" $readable }}{{ end -}}
{{- printf "%s-%s%s" ($readable | trunc $room | trimSuffix "-") $hash $tail -}}
{{- else -}}
{{- print $full $tail -}}
{{- end -}}
{{- end }}

{{/* scheduler, api, migrate, workers-forward ... */}}
{{- define "tide-relay.suffix" -}}
{{- .component }}{{ with .group }}-{{ . }}{{ end }}{{ with .nameSuffix }}-{{ . }}{{ end -}}
{{- end }}

{{- define "tide-relay.component.name" -}}
{{- include "tide-relay.named" (list .root (include "tide-relay.suffix" .)) -}}
{{- end }}

{{/* Fixed for the life of a release: Kubernetes refuses to change a selector. So no versions here. */}}
{{- define "tide-relay.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tide-relay.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .group }}
tide-relay/group: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "tide-relay.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tide-relay
{{- end }}

{{/* Of objects that belong to one component. */}}
{{- define "tide-relay.labels" -}}
{{ include "tide-relay.selectorLabels" . }}
{{ include "tide-relay.commonLabels" .root }}
{{- end }}

{{/* Of objects that belong to the whole release; takes root. */}}
{{- define "tide-relay.releaseLabels" -}}
app.kubernetes.io/name: {{ include "tide-relay.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{ include "tide-relay.commonLabels" . }}
{{- end }}

{{/* Of a component. A tag or a digest belongs to the repository that it stands beside. */}}
{{- define "tide-relay.image" -}}
{{- $own := default dict .values.image -}}
{{- $image := .root.Values.image -}}
{{- if $own.repository -}}
{{- $image = $own -}}
{{- else if or $own.digest $own.tag -}}
{{- $image = merge (dict "digest" $own.digest "tag" $own.tag) (omit $image "digest" "tag") -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end }}

{{- define "tide-relay.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tide-relay.named" (list . "")) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* The values of one group of workers: those of all groups, with its own over them. Takes (list root name). */}}
{{- define "tide-relay.group" -}}
{{- $root := index . 0 -}}
{{- $all := omit $root.Values.workers "groups" -}}
{{- include "tide-relay.over" (list $all (index $root.Values.workers.groups (index . 1))) -}}
{{- end }}

{{/* (list under over): maps are merged, anything else replaces. Unlike mergeOverwrite it lets false and 0 replace, too. */}}
{{- define "tide-relay.over" -}}
{{- $result := deepCopy (index . 0) -}}
{{- range $key, $value := index . 1 -}}
{{- $below := get $result $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $below) -}}
{{- $_ := set $result $key (include "tide-relay.over" (list $below $value) | fromYaml) -}}
{{- else -}}
{{- $_ := set $result $key $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $result -}}
{{- end }}

{{/* Whether a component is a group of workers that runs jobs: "true" or "". */}}
{{- define "tide-relay.runsJobs" -}}
{{- if eq .component "workers" -}}
{{- $told := or .values.jobs.modules .values.jobs.queues -}}
{{- if or (has "tide.jobs" .values.queues) (and $told (not .values.queues)) }}true{{ end -}}
{{- end -}}
{{- end }}

{{/* Whether `relay api` serves the admin API: "true" or "". Takes root. */}}
{{- define "tide-relay.hasAdmin" -}}
{{- if and .Values.api.enabled .Values.api.admin.existingSecret }}true{{ end -}}
{{- end }}

{{/* Names of the groups that run, as a YAML list. Takes root. */}}
{{- define "tide-relay.groups" -}}
{{- $names := list -}}
{{- if .Values.workers.enabled -}}
{{- range $name, $group := .Values.workers.groups -}}
{{- if and $group (dig "enabled" true $group) -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $names -}}
{{- end }}
