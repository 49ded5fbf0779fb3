// Renders a chart as `helm template` does, for machines that have no helm: Go's text/template with sprig and the functions
// that Helm adds (pkg/engine/funcs.go), of which the chart may use include, required, fail, toYaml, toJson and fromJsonArray.
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go run main.go CHART RELEASE NAMESPACE VALUES.json
//
// VALUES.json has the values already merged. Objects come in Helm's order of installation, each with its source.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

type files struct{ root string }

func (f files) Get(name string) string {
	data, err := os.ReadFile(filepath.Join(f.root, name))
	if err != nil {
		return ""
	}
	return string(data)
}

// Helm's pkg/releaseutil/kind_sorter.go, the kinds that are used; unknown kinds come last, by name.
var order = []string{"Namespace", "ResourceQuota", "ServiceAccount", "ConfigMap", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "DaemonSet"}

func rank(kind string) int {
	for i, one := range order {
		if one == kind {
			return i
		}
	}
	return len(order)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	chart, release, namespace := os.Args[1], os.Args[2], os.Args[3]
	var values, about map[string]interface{}
	raw, err := os.ReadFile(os.Args[4])
	must(err)
	must(json.Unmarshal(raw, &values))
	raw, err = os.ReadFile(filepath.Join(chart, "Chart.yaml"))
	must(err)
	must(yaml.Unmarshal(raw, &about))
	// Chart.yaml's fields have other names in templates.
	shown := map[string]interface{}{"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]}

	engine := template.New("chart").Option("missingkey=zero")
	funcs := sprig.TxtFuncMap()
	delete(funcs, "env")
	delete(funcs, "expandenv")
	funcs["include"] = func(name string, data interface{}) (string, error) {
		var out strings.Builder
		err := engine.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	funcs["toYaml"] = func(value interface{}) (string, error) {
		out, err := yaml.Marshal(value)
		return strings.TrimSuffix(string(out), "\n"), err
	}
	funcs["toJson"] = func(value interface{}) (string, error) {
		out, err := json.Marshal(value)
		return string(out), err
	}
	funcs["fromJsonArray"] = func(text string) ([]interface{}, error) {
		var out []interface{}
		err := json.Unmarshal([]byte(text), &out)
		return out, err
	}
	funcs["required"] = func(message string, value interface{}) (interface{}, error) {
		if value == nil || value == "" {
			return nil, errors.New(message)
		}
		return value, nil
	}
	funcs["fail"] = func(message string) (string, error) { return "", errors.New(message) }
	engine.Funcs(funcs)

	paths, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	must(err)
	sort.Strings(paths)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		must(err)
		_, err = engine.New(filepath.Base(path)).Parse(string(text))
		must(err)
	}
	data := map[string]interface{}{
		"Values":  values,
		"Chart":   shown,
		"Release": map[string]interface{}{"Name": release, "Namespace": namespace, "Service": "Helm"},
		"Files":   files{chart},
	}
	type object struct{ kind, name, source, text string }
	var objects []object
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out bytes.Buffer
		must(engine.ExecuteTemplate(&out, name, data))
		// Helm does the same: missingkey=zero prints this for what is not there.
		text := strings.ReplaceAll(out.String(), "<no value>", "")
		if name == "NOTES.txt" {
			if len(os.Args) > 5 && os.Args[5] == "--notes" {
				fmt.Print(text)
				return
			}
			continue
		}
		for _, part := range strings.Split("\n"+text, "\n---") {
			if strings.TrimSpace(part) == "" {
				continue
			}
			var head struct {
				Kind     string
				Metadata struct{ Name string }
			}
			if err := yaml.Unmarshal([]byte(part), &head); err != nil {
				must(fmt.Errorf("%s: %v\n%s", name, err, part))
			}
			objects = append(objects, object{head.Kind, head.Metadata.Name, "namegate/templates/" + name, strings.TrimSpace(part)})
		}
	}
	sort.SliceStable(objects, func(i, j int) bool {
		a, b := objects[i], objects[j]
		if rank(a.kind) != rank(b.kind) {
			return rank(a.kind) < rank(b.kind)
		}
		return a.kind == b.kind && a.name < b.name || rank(a.kind) == len(order) && a.kind < b.kind
	})
	for _, one := range objects {
		fmt.Printf("---\n# Source: %s\n%s\n", one.source, one.text)
	}
}
