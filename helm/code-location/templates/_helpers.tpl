{{- define "location.labels" -}}
app.kubernetes.io/part-of: open-forge
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
open-forge/location: {{ .Values.location }}
{{- end -}}

{{- define "location.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* What forge-values made for the Dagster chart. */}}
{{- define "location.deployment" -}}
{{- $deployments := dig "deployments" list (index .Values "dagster-user-deployments" | default dict) -}}
{{- $first := first $deployments | default dict -}}
{{- if or (ne (len $deployments) 1) (ne .Values.location ($first.name | default "")) (not $first.env) -}}
{{- fail "These values were not made by forge-values: it merges the team's files and makes those of the Dagster chart, see docs/deploy.md." -}}
{{- end -}}
{{- $registrar := lookup "apps/v1" "Deployment" .Release.Namespace "forge-registrar" -}}
{{- if eq .Release.Name (dig "metadata" "annotations" "meta.helm.sh/release-name" "" $registrar) -}}
{{- fail (printf "The release %s is the platform: name the code location otherwise." .Release.Name) -}}
{{- end -}}
{{- toYaml $first -}}
{{- end -}}
