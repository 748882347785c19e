{{/* The migrate job runs before anything else of the release is there; and what it needs before it, as hooks that are made
     again each time. A job that failed is kept, for its log. Takes the weight. */}}
{{- define "tide-relay.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
