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
- SYS_PTRACE
{{- if include "namegate.knownHellos" . }}
- BPF
{{- end }}
{{- end }}

{{/* Not empty: the kernel may know hellos. */}}
{{- define "namegate.knownHellos" -}}
{{- if ne (toString .Values.config.knownHellos) "false" }}yes{{ end }}
{{- end }}

{{- define "namegate.resolverNamespaces" -}}
{{- .Values.config.resolvers.namespaces | default (list (ternary "openshift-dns" "kube-system" .Values.openshift.enabled)) | toJson }}
{{- end }}

{{- define "namegate.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config "metrics" (printf "%s:%v" .Values.metrics.address .Values.metrics.port) }}
{{- $_ := set $config.resolvers "namespaces" (include "namegate.resolverNamespaces" . | fromJsonArray) }}
{{- if .Values.startupTaint.enabled }}
{{- $_ := set $config "startup" (set (default dict $config.startup) "taint" "namegate.dev/agent-not-ready") }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* Probes ask where metrics listen; an unspecified address is asked by loopback. */}}
{{- define "namegate.probe" -}}
httpGet:
  host: {{ if has .Values.metrics.address (list "0.0.0.0" "[::]") }}127.0.0.1{{ else }}{{ .Values.metrics.address | trimAll "[]" }}{{ end }}
  port: {{ .Values.metrics.port }}
{{- end }}

{{/* What a container of ours may do, and what it sees of the node. */}}
{{- define "namegate.confinement" -}}
securityContext:
  privileged: false
  runAsUser: 0
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  seccompProfile: { type: RuntimeDefault }
  capabilities:
    drop: [ALL]
    add:
    {{- include "namegate.capabilities" . | nindent 4 }}
  {{- if .Values.seLinuxOptions }}
  seLinuxOptions:
    {{- toYaml .Values.seLinuxOptions | nindent 4 }}
  {{- else if .Values.openshift.enabled }}
  seLinuxOptions: { type: spc_t }
  {{- end }}
volumeMounts:
- { name: config, mountPath: /etc/namegate, readOnly: true }
{{- range .Values.secretMounts }}
- { name: secret-{{ . }}, mountPath: /etc/namegate-secrets/{{ . }}, readOnly: true }
{{- end }}
- { name: run, mountPath: /run/namegate }
- { name: state, mountPath: /var/lib/namegate }
- { name: xtables-lock, mountPath: /run/xtables.lock }
- { name: cgroup, mountPath: /sys/fs/cgroup, readOnly: true }
- { name: cni, mountPath: /etc/cni/net.d, readOnly: true }
{{- if include "namegate.knownHellos" . }}
- { name: bpf, mountPath: /sys/fs/bpf }
{{- end }}
{{- end }}
