{{- define "namegate.labels" -}}
app.kubernetes.io/name: namegate
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "namegate.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Each with what it is for in daemonset/README.md; test/system/capabilities.test.ts takes them away one by one. */}}
{{- define "namegate.capabilities" -}}
- NET_ADMIN
- NET_RAW
- SYS_NICE
{{- end }}

{{- define "namegate.config" -}}
{{- toYaml .Values.config }}
{{- end }}

{{/* Probes ask where metrics listen; an unspecified address is asked by loopback. */}}
{{- define "namegate.probe" -}}
httpGet:
  host: {{ if has .Values.metrics.address (list "0.0.0.0" "[::]") }}127.0.0.1{{ else }}{{ .Values.metrics.address | trimAll "[]" }}{{ end }}
  port: {{ .Values.metrics.port }}
{{- end }}
